// The stepper of theory.html: one seed's stream, one stage of it feature by feature.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("stream").textContent);
  const { classes: C, features: K, examples: N, gamma, tau, stages: J } = data;
  const $ = (id) => document.getElementById(id);
  const LIVE = 0, DONE = 1, MEMORISED = 2;
  const names = ["live", "done", "memorised"];

  // carried[i] lists the features of example i; example i is of class i mod C and arrived in stage i / N.
  const bytes = Uint8Array.from(atob(data.carried), (char) => char.charCodeAt(0));
  const width = Math.ceil(K / 8);
  const carried = Array.from({ length: N * J }, (_, i) => {
    const found = [];
    for (let k = 0; k < K; k++) if (bytes[i * width + (k >> 3)] & (128 >> (k & 7))) found.push(k);
    return found;
  });

  let method = "warm", stage = 1, step = 0, view = null, playing = null, chosen = null;

  // What was learned when a stage began: all earlier steps, or nothing if the method forgets.
  function known(before) {
    const learned = new Uint8Array(C * K);
    if (data.keeps[method].features)
      for (let s = 1; s <= before; s++) for (const [c, k] of data.steps[method][s - 1]) learned[c * K + k] = 1;
    return learned;
  }

  const held = (i, learned) => carried[i].reduce((sum, k) => sum + learned[(i % C) * K + k], 0);

  // The whole state of the network at a step of a stage.
  function look() {
    const earlier = known(stage - 1), learned = earlier.slice();
    const steps = data.steps[method][stage - 1], seen = N * stage, over = step > steps.length;
    steps.slice(0, step).forEach(([c, k]) => (learned[c * K + k] = 1));
    const state = new Uint8Array(seen), counts = new Int32Array(C * K), totals = [0, 0, 0];
    const ends = data.keeps[method].memorised ? Array.from({ length: stage }, (_, s) => known(s)) : [];
    for (let i = 0; i < seen; i++) {
      const arrived = Math.floor(i / N) + 1;
      const kept = data.keeps[method].memorised && arrived < stage && held(i, ends[arrived]) < tau;
      state[i] = kept ? MEMORISED : held(i, learned) >= tau ? DONE : over ? MEMORISED : LIVE;
      totals[state[i]]++;
      if (state[i] === LIVE) for (const k of carried[i]) counts[(i % C) * K + k]++;
    }
    return { earlier, learned, steps, state, counts, totals, over };
  }

  const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colours = () => [ink("--live"), ink("--done"), ink("--memorised")];

  function sized(canvas, height) {
    const ratio = window.devicePixelRatio || 1, wide = canvas.parentElement.clientWidth;
    canvas.width = wide * ratio;
    canvas.height = height * ratio;
    canvas.style.height = `${height}px`;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    return { pen, wide };
  }

  function drawFeatures() {
    const { pen, wide } = sized($("features"), 12 + 122 * C), high = 84;
    const next = view.steps[step], top = Math.max(2 * gamma, ...view.counts);
    pen.font = "12px system-ui, sans-serif";
    for (let c = 0; c < C; c++) {
      const base = 122 * (c + 1) - 10, w = wide / K;
      pen.fillStyle = ink("--soft");
      pen.fillText(`class ${c + 1}`, 0, base - high - 8);
      for (let k = 0; k < K; k++) {
        const at = c * K + k, height = (high * view.counts[at]) / top;
        const isNext = next && next[0] === c && next[1] === k;
        pen.fillStyle = isNext ? ink("--warn") : ink("--mark");
        pen.globalAlpha = isNext ? 1 : view.learned[at] ? 0.2 : 0.75;
        pen.fillRect(k * w, base - height, Math.max(1, w - 1.5), height);
        pen.globalAlpha = 1;
        if (view.learned[at]) {
          pen.fillStyle = view.earlier[at] ? ink("--soft") : ink("--done");
          pen.fillRect(k * w, base + 2, Math.max(1, w - 1.5), 6);
        }
      }
      const line = base - (high * gamma) / top;
      pen.strokeStyle = ink("--ink");
      pen.setLineDash([4, 3]);
      pen.beginPath();
      pen.moveTo(0, line);
      pen.lineTo(wide, line);
      pen.stroke();
      pen.setLineDash([]);
      pen.fillStyle = ink("--ink");
      if (c === 0) pen.fillText(`gamma = ${gamma}`, wide - 78, line - 4);
    }
  }

  // One dot an example, in the order of arrival; the newest stage is framed.
  function grid(wide) {
    const seen = N * stage, cell = Math.max(2, Math.min(9, Math.floor(Math.sqrt((wide * 300) / seen))));
    return { cell, columns: Math.max(1, Math.floor(wide / cell)), seen };
  }

  function drawExamples() {
    const canvas = $("examples"), { cell, columns, seen } = grid(canvas.parentElement.clientWidth);
    const { pen } = sized(canvas, Math.ceil(seen / columns) * cell + 2);
    const fill = colours(), gap = cell > 3 ? 1 : 0;
    for (let i = 0; i < seen; i++) {
      const x = (i % columns) * cell, y = Math.floor(i / columns) * cell;
      pen.fillStyle = fill[view.state[i]];
      pen.globalAlpha = i >= N * (stage - 1) ? 1 : 0.55;
      pen.fillRect(x, y, cell - gap, cell - gap);
    }
    pen.globalAlpha = 1;
    if (chosen !== null && chosen < seen) {
      pen.strokeStyle = ink("--ink");
      pen.lineWidth = 2;
      pen.strokeRect((chosen % columns) * cell - 1, Math.floor(chosen / columns) * cell - 1, cell + 1, cell + 1);
    }
  }

  function describe() {
    const { steps, over, totals } = view, last = steps[step - 1];
    const feature = ([c, k]) => `feature ${k + 1} of class ${c + 1}`;
    if (over)
      return `Stage ${stage} is over: no unlearned feature is left in ${gamma} live examples, and what was live is ` +
        `memorised through its noise. Features learned in this stage: ${steps.length}.`;
    let text = step === 0
      ? `Stage ${stage} begins: ${totals[LIVE].toLocaleString("en")} of ${(N * stage).toLocaleString("en")} examples ` +
        `seen so far have a gradient. `
      : `Step ${step} of ${steps.length}: ${feature(last)} was learned from ${last[2]} live examples; ` +
        `${last[3]} of them now have ${tau} learned features and drop out. `;
    const next = steps[step];
    text += next
      ? `Next: ${feature(next)}, in ${next[2]} live examples.`
      : `No unlearned feature is left in ${gamma} live examples: the rest will be memorised.`;
    return text;
  }

  function describeExample() {
    if (chosen === null || chosen >= N * stage) return "Tap a square to see what that example carries.";
    const c = chosen % C, mine = carried[chosen];
    const shown = mine.map((k) => (view.learned[c * K + k] ? `${k + 1} (learned)` : `${k + 1}`)).join(", ") || "none";
    return `Example ${chosen + 1}, class ${c + 1}, arrived in stage ${Math.floor(chosen / N) + 1}: features ${shown}. ` +
      `${held(chosen, view.learned)} learned, ${tau} are enough: ${names[view.state[chosen]]}.`;
  }

  function show() {
    view = look();
    $("stage").value = stage;
    $("stage-shown").textContent = `${stage} of ${J}`;
    $("said").textContent = describe();
    $("example").textContent = describeExample();
    view.totals.forEach((total, kind) => ($(`total-${names[kind]}`).textContent = total.toLocaleString("en")));
    for (const button of document.querySelectorAll("[data-method]"))
      button.setAttribute("aria-pressed", String(button.dataset.method === method));
    $("back").disabled = step === 0 && stage === 1;
    $("on").disabled = view.over && stage === J;
    drawFeatures();
    drawExamples();
  }

  const atEnd = () => step > data.steps[method][stage - 1].length;

  function on() {
    if (!atEnd()) step++;
    else if (stage < J) { stage++; step = 0; }
    else stop();
    show();
  }

  function back() {
    if (step > 0) step--;
    else if (stage > 1) { stage--; step = data.steps[method][stage - 1].length + 1; }
    show();
  }

  function stop() {
    clearInterval(playing);
    playing = null;
    $("play").textContent = "Play";
  }

  function play() {
    if (playing) return stop();
    $("play").textContent = "Pause";
    playing = setInterval(on, 600);
  }

  for (const button of document.querySelectorAll("[data-method]"))
    button.addEventListener("click", () => { method = button.dataset.method; step = 0; show(); });
  $("stage").addEventListener("input", (event) => { stage = Number(event.target.value); step = 0; show(); });
  $("on").addEventListener("click", () => { stop(); on(); });
  $("back").addEventListener("click", () => { stop(); back(); });
  $("end").addEventListener("click", () => { stop(); step = data.steps[method][stage - 1].length + 1; show(); });
  $("play").addEventListener("click", play);
  $("examples").addEventListener("click", (event) => {
    const box = event.target.getBoundingClientRect(), { cell, columns, seen } = grid(box.width);
    const column = Math.floor((event.clientX - box.left) / cell);
    const i = Math.floor((event.clientY - box.top) / cell) * columns + column;
    if (column < columns && i < seen) { chosen = i; show(); }
  });
  window.addEventListener("resize", show);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  stage = Math.min(2, J);
  show();
})();
