"""Readers: files, tables and data sets of torch become labelled images in memory."""
