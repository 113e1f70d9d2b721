#!/bin/sh
# All grids of these pages, and those that are still to be measured: some forty hours on two cores. Each command goes on
# where it stopped, so start it again at will. From the repository's root, with the folder that holds cifar10/ and cifar100/:
#
#     sh docs/evidence/measure.sh ../shared/data out/evidence && python docs/make_evidence.py out/evidence
set -e
data=$(cd "$1" && pwd) out=$2
mkdir -p "$out"
.venv/bin/python docs/evidence/begun.py restore "$out"  # what other machines have computed
export PYTHONPATH=docs/evidence:benchmarks OMP_NUM_THREADS=1
run() { name=$1; shift; .venv/bin/warmstart compare --threads 1 --out "$out/$name" "$@"; }
reproduce() { name=$1; shift; .venv/bin/warmstart reproduce "$@" --optimizers sgd --threads 1 --out "$out/$name"; }
at_rates() { for method; do for rate in 0.001 0.003 0.01 0.03; do printf ',%s' "$method" | sed "s/]\$/,lr=$rate]/; t; s/\$/[lr=$rate]/"; done; done; }

main='cold,warm,rewarm,shrink-perturb,shrink-perturb[noise_std=0],dash,fire'
paper='--batch-size 64 --max-epochs 300'
limited='--batch-size 64 --max-epochs 100'  # a trial with a high rate may never end a stage, and is given up there
rates="rewarm[lr=0.001],rewarm[lr=0.003],rewarm[lr=0.01]$(at_rates cold warm 'shrink-perturb[noise_std=0]' dash)"

# Do our runs end where the authors' do?
reproduce our-draws cifar10 --data "$data/cifar10" --model small-cnn --stages 4 --stage-size 250 --methods dash --seeds 20
[ -f "$out/authors-draws.csv" ] || .venv/bin/python docs/evidence/authors_draws.py "$data/cifar10" --out "$out/authors-draws.csv"

# What `warmstart retrain` saves in ten nights
[ -f "$out/ten-nights.csv" ] || .venv/bin/python docs/evidence/ten_nights.py "$data/cifar10" --out "$out/ten-nights.csv"

# The paper's protocol, reduced to two cores
reduced="cifar10 --data $data/cifar10 --protocol reduced --model small-cnn --seeds 5"
for name in reduced-small reduced-small-sam; do
  [ $name = reduced-small ] && optimizer=sgd || optimizer=sam
  .venv/bin/warmstart reproduce $reduced --optimizers $optimizer --threads 1 --out "$out/$name" \
    --methods 'cold,warm,shrink-perturb,dash,fire,shrink-perturb[noise_std=0]'
done
reproduce twelve-stages $reduced --stages 12 --stage-size 250 --methods cold,warm,shrink-perturb,dash

# How much of the gain is a better learning rate?
for images in cifar10 cifar100; do
  run rates-$images --data "$data/$images" --stages 5 --stage-size 1000 $paper --methods "$rates" --seeds 3
done

# What in DASH, Shrink & Perturb and FIRE makes the gain?
run family-digits docs/evidence/family-digits.yaml
arms=''
for arm in scale=0.1 scale=0.2 scale=0.5 spectrum=0.5 spectrum=1 spectrum=1,matrix=filter spectrum=0.5,matrix=filter \
  scale=0.2,spectrum=1 scale=0.5,spectrum=1 scale=0.1,spectrum=1 select=1 select=1,spectrum=1 norm=dash,spectrum=1 \
  head=0.3,body=1 head=1,body=0.3 head=0.1,body=0.3 noise=0.3 noise=1 relative=initial,scale=1 \
  relative=initial,scale=1,spectrum=1; do arms="$arms,family:Family[$arm]"; done
run family-cifar10 --data "$data/cifar10" --stages 5 --stage-size 250 $paper \
  --methods "cold,warm,shrink-perturb[noise_std=0],dash,fire$arms" --seeds 5

run family-tiny --data "$data/tiny-imagenet-10/tiny-imagenet-200.tar" --image-size 32 --stages 5 --stage-size 400 $paper --seeds 10 \
  --methods "cold,warm,shrink-perturb[noise_std=0],dash,fire,family:Family[spectrum=1],family:Family[scale=0.2,spectrum=1],\
family:Family[select=1,spectrum=1],family:Family[noise=0.3]"

# Where does it pay?
[ -f "$out/noisy.npz" ] || .venv/bin/python docs/evidence/noisy_labels.py "$data/cifar10" --out "$out/noisy.npz"
for recipe in paper practice; do
  [ $recipe = paper ] && how=$paper || how='--protocol practice'
  # Stages of 1000 are measured below, with tuning: the methods as given.
  where() { name=$1; shift; run "where-$recipe-$name" --stages 5 $how "$@" --methods "$main" --seeds 5; }
  where clean --data "$data/cifar10" --stage-size 250
  where noisy --data "$out/noisy.npz" --stage-size 250
  where pointwise --data "$data/cifar10" --stage-size 250 --model pointwise_networks:separable
  [ $recipe = paper ] || where none --data "$data/cifar10" --stage-size 250 --model 'small-cnn[norm=none]'
  where none-low --data "$data/cifar10" --stage-size 250 --model 'small-cnn[norm=none]' --lr 0.01
done
run fire-keep --data "$data/cifar10" --stages 5 --stage-size 250 $paper --seeds 5 \
  --methods 'cold,warm,warm-reset,fire,fire[optimizer_state=keep],shrink-perturb[noise_std=0],dash'
run no-norm-digits --model 'small-cnn[norm=none]' --lr 0.01 --max-epochs 300 --seeds 5 \
  --methods 'cold,warm,shrink-perturb,shrink-perturb[noise_std=0],dash,fire'

rule='family:Family[spectrum=1]'  # its claim stands in one-family.md

# Equal tuning, and the paper's protocol at a tenth
run tuned-digits --data digits --test fixed --methods 'cold,warm,rewarm,shrink-perturb[noise_std=0],dash' --tune 12 --seeds 5
for images in cifar10 cifar100; do
  run tuned-incremental-$images --data "$data/$images" --stages 5 --stage-size 1000 $limited --methods "$main,$rule" --tune 12 --seeds 5
  run tuned-practice-$images --data "$data/$images" --stages 5 --stage-size 1000 --protocol practice --methods "$main,$rule" --tune 12 --seeds 5
  reproduce tenth-$images $images --data "$data/$images" --model 'resnet18[width=16]' --stages 10 --methods "$main" --seeds 3
done
