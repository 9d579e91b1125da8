"use strict";
const D = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const esc = (v) => String(v).replace(/[&<>"']/g, (c) => "&#" + c.charCodeAt(0) + ";");
const isNumber = (v) => typeof v === "number" && isFinite(v);
const better = D.mode === "max" ? 1 : -1;
const valued = D.trials.filter((t) => isNumber(t.best_metric));
const ranked = [...valued].sort((a, b) => better * (b.best_metric - a.best_metric));
const rank = new Map(ranked.map((t, at) => [t.trial_id, ranked.length > 1 ? 1 - at / (ranked.length - 1) : 1]));
const finite = (values) => values.filter(isNumber);

function fmt(v) {
  if (!isNumber(v)) return v === null || v === undefined ? "–" : typeof v === "string" ? v : JSON.stringify(v);
  const size = Math.abs(v);
  if (size && (size < 1e-3 || size >= 1e6)) return v.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
  return String(+v.toPrecision(4));
}

/* Colours: by rank, so that one trial that went wrong does not make all others alike. */
let ramp = [];
function readRamp() {
  const style = getComputedStyle(document.documentElement);
  ramp = [0, 1, 2, 3, 4].map((n) => style.getPropertyValue("--r" + n).trim().slice(1).match(/../g).map((h) => parseInt(h, 16)));
}
function colour(t) {
  const place = (rank.get(t.trial_id) ?? 0) * (ramp.length - 1), low = Math.min(ramp.length - 2, Math.floor(place));
  const mix = ramp[low].map((c, at) => Math.round(c + (ramp[low + 1][at] - c) * (place - low)));
  return `rgb(${mix})`;
}

/* Axes: a function from a value to 0..1, and ticks. */
function niceTicks(low, high, count) {
  const raw = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const ticks = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-9; v += step) ticks.push(+v.toPrecision(12));
  return ticks;
}
function linearAxis(values, ticks) {
  let low = Math.min(...values), high = Math.max(...values);
  if (!(low < high)) { const pad = Math.abs(low) / 2 || 0.5; low -= pad; high += pad; }
  return { at: (v) => (v - low) / (high - low), ticks: niceTicks(low, high, ticks || 5), low, high };
}
function logAxis(values) {
  let low = Math.log10(Math.min(...values)), high = Math.log10(Math.max(...values));
  if (!(low < high)) { low -= 0.5; high += 0.5; }
  const within = (v) => Math.log10(v) >= low - 1e-9 && Math.log10(v) <= high + 1e-9, ticks = [];
  for (let p = Math.floor(low); p <= Math.ceil(high); p++) ticks.push(...(high - low < 1.5 ? [1, 2, 5] : [1]).map((m) => m * 10 ** p));
  return { at: (v) => (Math.log10(v) - low) / (high - low), ticks: ticks.filter(within).map((v) => +v.toPrecision(6)) };
}
function choiceAxis(values) {
  const text = (v) => JSON.stringify(v), known = [...new Set(values.map(text))].sort();
  const at = (v) => (known.indexOf(text(v)) + 0.5) / known.length;
  return { at, ticks: known.map((t) => JSON.parse(t)), spread: 0.5 / known.length };
}
function axisOf(path, scale) {
  const values = valued.map((t) => t.parameters[path]).filter((v) => v !== undefined && v !== null);
  if (!values.length) return null;
  if (scale === "choice") return choiceAxis(values);
  const axis = scale === "log" && Math.min(...values) > 0 ? logAxis(values) : linearAxis(values);
  const few = [...new Set(values)].sort((a, b) => a - b);
  if (few.length <= 5) { axis.ticks = few; axis.spread = 0.06; }
  return axis;
}
/* Values of trials that went astray would flatten all others: they are drawn at the edge. */
function metricAxis(values) {
  const sorted = [...values].sort((a, b) => better * (b - a)), share = (q) => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];
  const best = sorted[0], most = share(0.9), reach = Math.abs(most - best), last = sorted[sorted.length - 1];
  const astray = sorted.length > 4 && reach > 0 && Math.abs(last - best) > 3 * reach;
  const axis = linearAxis(astray ? [best, most - better * reach * 0.5] : [best, last]);
  return { ...axis, at: (v) => Math.max(0, Math.min(1, (v - axis.low) / (axis.high - axis.low))) };
}
const jitter = (t) => ((t.number * 0.618034) % 1) - 0.5;
function place(axis, t, path) {
  const v = t.parameters[path];
  if (v === undefined || v === null) return null;
  return axis.at(v) + (axis.spread ? jitter(t) * axis.spread * 0.9 : 0);
}

const names = shortNames(D.parameters.map((p) => p.path));
function shortNames(paths) {
  const found = {};
  for (const path of paths) {
    const parts = path.split(".");
    for (let n = 1; n <= parts.length; n++) {
      const end = parts.slice(-n).join(".");
      found[path] = end;
      if (!paths.some((o) => o !== path && ("." + o).endsWith("." + end))) break;
    }
  }
  return found;
}
const axes = D.parameters.map((p) => ({ ...p, name: names[p.path], axis: axisOf(p.path, p.scale) })).filter((p) => p.axis);
const isBest = (t) => t.trial_id === D.best;
const mark = (t, more) => `class="trial ${t.status} ${isBest(t) ? "best " : ""}${more || ""}" data-trial="${esc(t.trial_id)}"`;
const titled = (t) => `<title>${esc(t.trial_id)}: ${esc(fmt(t.best_metric))}, ${esc(t.status)}</title>`;
const svg = (w, h, label, body) => `<svg viewBox="0 0 ${w} ${h}" role="img" aria-label="${esc(label)}"><title>${esc(label)}</title>${body}</svg>`;
const cut = (text, most) => (text.length > most ? text.slice(0, most - 1) + "…" : text);
const empty = (text) => `<p class="empty">${esc(text)}</p>`;
const later = (list) => [...list].sort((a, b) => (rank.get(a.trial_id) ?? 0) - (rank.get(b.trial_id) ?? 0));

/* Parallel coordinates */
const brushes = new Map();
let columns = [], frame = { top: 44, height: 300 };
function drawParallel() {
  const box = $("parallel");
  if (!axes.length) { box.innerHTML = empty("No trial has a value yet."); return; }
  const w = Math.max(560, box.clientWidth - 24), { top, height } = frame, left = 60, right = 78;
  const all = [...axes, { name: D.metric, axis: metricAxis(valued.map((t) => t.best_metric)), metric: true }];
  columns = all.map((p, at) => ({ ...p, x: left + (at * (w - left - right)) / Math.max(1, all.length - 1) }));
  const y = (share) => top + height * (1 - share);
  for (const c of columns) c.y = (t) => { const s = c.metric ? c.axis.at(t.best_metric) : place(c.axis, t, c.path); return s === null ? null : y(s); };
  let body = "";
  for (const t of later(valued)) {
    const points = columns.map((c) => [c.x, c.y(t)]).filter((p) => p[1] !== null);
    const d = points.map(([x, py], at) => { if (!at) return `M${x},${py.toFixed(1)}`; const [px, ppy] = points[at - 1], m = (x - px) * 0.4; return `C${px + m},${ppy.toFixed(1)} ${x - m},${py.toFixed(1)} ${x},${py.toFixed(1)}`; }).join("");
    body += `<path ${mark(t)} d="${d}" stroke="${colour(t)}">${titled(t)}</path>`;
  }
  columns.forEach((c, at) => {
    const last = c.metric, share = isNumber(c.importance) ? ` ${Math.round(c.importance * 100)}%` : "";
    body += `<line class="axis" x1="${c.x}" x2="${c.x}" y1="${top}" y2="${top + height}"/>`;
    const anchor = last ? "end" : at === 0 ? "start" : "middle", x = last ? c.x + right - 8 : at === 0 ? 4 : c.x;
    body += `<text class="name" x="${x}" y="16" text-anchor="${anchor}">${esc(cut(c.name, 24))}</text>`;
    body += `<text x="${x}" y="31" text-anchor="${anchor}">${last ? (D.mode === "max" ? "more is better" : "less is better") : c.scale + (share && "," + share)}</text>`;
    for (const v of c.axis.ticks) {
      const ty = y(c.axis.at(v)), side = last ? 1 : -1;
      body += `<line class="axis" x1="${c.x}" x2="${c.x + 4 * side}" y1="${ty}" y2="${ty}"/><text x="${c.x + 7 * side}" y="${ty + 4}" text-anchor="${last ? "start" : "end"}">${esc(cut(fmt(v), 12))}</text>`;
    }
    body += `<rect class="brush" data-brush="${at}" x="${c.x - 9}" width="18" y="0" height="0" visibility="hidden"/>`;
    body += `<rect class="hit" tabindex="0" role="slider" aria-label="${esc(c.name)}: arrows narrow its range, Escape clears it" aria-valuetext="all" data-axis="${at}" x="${c.x - 16}" width="32" y="${top - 4}" height="${height + 8}"/>`;
  });
  box.innerHTML = svg(w, top + height + 16, `Parallel coordinates of ${valued.length} trials over ${axes.length} parameters and ${D.metric}`, body);
  box.querySelectorAll(".hit").forEach(brushing);
  brushes.forEach((range, at) => showBrush(at));
}
function showBrush(at) {
  const rect = document.querySelector(`[data-brush="${at}"]`), range = brushes.get(at);
  rect.setAttribute("visibility", range ? "visible" : "hidden");
  if (range) { rect.setAttribute("y", range[0]); rect.setAttribute("height", Math.max(2, range[1] - range[0])); }
  document.querySelector(`[data-axis="${at}"]`).setAttribute("aria-valuetext", range ? "a part of it" : "all");
}
function brushing(hit) {
  const at = +hit.dataset.axis, root = hit.ownerSVGElement, low = frame.top, high = frame.top + frame.height;
  const where = (e) => { const box = root.getBoundingClientRect(); return Math.max(low, Math.min(high, ((e.clientY - box.top) * root.viewBox.baseVal.height) / box.height)); };
  const set = (range) => { range ? brushes.set(at, range) : brushes.delete(at); showBrush(at); select(); };
  let from = null;
  hit.addEventListener("pointerdown", (e) => { from = where(e); hit.setPointerCapture(e.pointerId); e.preventDefault(); hit.focus({ preventScroll: true }); });
  hit.addEventListener("pointermove", (e) => { if (from !== null && Math.abs(where(e) - from) > 3) set([Math.min(from, where(e)), Math.max(from, where(e))]); });
  hit.addEventListener("pointerup", (e) => { if (from !== null && Math.abs(where(e) - from) <= 3) set(null); from = null; });
  hit.addEventListener("keydown", (e) => {
    const [a, b] = brushes.get(at) || [low, high], step = frame.height / 20;
    if (e.key === "ArrowUp") set([a, Math.max(a + step, b - step)]);
    else if (e.key === "ArrowDown") set([Math.min(b - step, a + step), b]);
    else if (e.key === "Escape") set(null);
    else return;
    e.preventDefault();
  });
}
function isChosen(t) {
  for (const [at, [a, b]] of brushes) { const y = isNumber(t.best_metric) ? columns[at].y(t) : null; if (y === null || y < a - 0.5 || y > b + 0.5) return false; }
  return true;
}
function select() {
  const chosen = new Set(D.trials.filter(isChosen).map((t) => t.trial_id));
  document.querySelectorAll("[data-trial]").forEach((el) => { const off = !chosen.has(el.dataset.trial); el.tagName === "TR" ? (el.hidden = off) : el.classList.toggle("off", off); });
  $("filter").hidden = !brushes.size;
  $("filter-text").textContent = `${chosen.size} of ${D.trials.length} trials are in the ranges that you marked.`;
}

/* Slices */
function drawSlices() {
  const box = $("slices");
  if (!axes.length) { box.innerHTML = empty("No trial has a value yet."); return; }
  const metric = metricAxis(valued.map((t) => t.best_metric)), w = 340, h = 220, l = 52, r = 12, top = 26, bottom = 34;
  const y = (v) => top + 8 + (h - top - bottom - 16) * (1 - metric.at(v)), x = (s) => l + 10 + (w - l - r - 20) * s;
  box.innerHTML = axes.map((p) => {
    let body = metric.ticks.map((v) => `<line class="grid" x1="${l}" x2="${w - r}" y1="${y(v)}" y2="${y(v)}"/><text x="${l - 7}" y="${y(v) + 4}" text-anchor="end">${esc(fmt(v))}</text>`).join("");
    const room = Math.max(4, Math.floor((w - l - r) / p.axis.ticks.length / 7));
    body += p.axis.ticks.map((v) => `<text x="${x(p.axis.at(v))}" y="${h - bottom + 17}" text-anchor="middle">${esc(cut(fmt(v), room))}</text>`).join("");
    body += `<line class="axis" x1="${l}" x2="${w - r}" y1="${h - bottom}" y2="${h - bottom}"/>`;
    body += `<text class="name" x="${l}" y="14">${esc(cut(p.name, 28))}</text>` + (isNumber(p.importance) ? `<text x="${w - r}" y="14" text-anchor="end">${Math.round(p.importance * 100)}% of what matters</text>` : "");
    for (const t of later(valued)) {
      const s = place(p.axis, t, p.path);
      if (s === null) continue;
      const c = colour(t), open = t.status !== "succeeded" ? "open" : "";
      body += `<circle ${mark(t, open)} cx="${x(s).toFixed(1)}" cy="${y(t.best_metric).toFixed(1)}" r="4" stroke="${c}" ${open ? "" : `fill="${c}"`}>${titled(t)}</circle>`;
      if (isBest(t)) body += `<circle class="ring" data-trial="${esc(t.trial_id)}" cx="${x(s).toFixed(1)}" cy="${y(t.best_metric).toFixed(1)}" r="8"/>`;
    }
    return `<div>${svg(w, h, `${D.metric} against ${p.path}, ${p.scale} axis`, body)}</div>`;
  }).join("");
}

/* Learning curves */
function drawCurves() {
  const box = $("curves"), known = D.trials.map((t) => ({ ...t, points: (t.history || []).filter((p) => isNumber(p[0]) && isNumber(p[1])) })).filter((t) => t.points.length);
  if (!known.length) { box.innerHTML = empty("No trial has been evaluated yet."); return; }
  const w = Math.max(560, box.clientWidth - 24), h = 372, l = 56, r = 96, top = 26, bottom = 38;
  const xs = linearAxis([0, ...known.flatMap((t) => t.points.map((p) => p[0]))], 8), ys = metricAxis(known.flatMap((t) => t.points.map((p) => p[1])));
  const x = (v) => l + (w - l - r) * xs.at(v), y = (v) => top + (h - top - bottom) * (1 - ys.at(v));
  let body = ys.ticks.map((v) => `<line class="grid" x1="${l}" x2="${w - r}" y1="${y(v)}" y2="${y(v)}"/><text x="${l - 8}" y="${y(v) + 4}" text-anchor="end">${esc(fmt(v))}</text>`).join("");
  body += xs.ticks.map((v) => `<text x="${x(v)}" y="${h - bottom + 18}" text-anchor="middle">${esc(fmt(v))}</text>`).join("");
  body += `<line class="axis" x1="${l}" x2="${w - r}" y1="${h - bottom}" y2="${h - bottom}"/><text x="${w - r}" y="${h - 4}" text-anchor="end">step</text><text class="name" x="${l}" y="14">${esc(D.metric)}</text>`;
  for (const t of later(known)) {
    const d = t.points.map((p, at) => `${at ? "L" : "M"}${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`).join(""), end = t.points[t.points.length - 1];
    body += `<path ${mark(t, "curve")} d="${d}" stroke="${colour(t)}">${titled(t)}</path>`;
    if (t.status !== "succeeded" || t.points.length === 1) body += `<circle ${mark(t, "curve")} cx="${x(end[0]).toFixed(1)}" cy="${y(end[1]).toFixed(1)}" r="2.5" fill="${colour(t)}" stroke="none">${titled(t)}</circle>`;
    if (isBest(t)) body += `<text class="best" x="${x(end[0]) + 8}" y="${y(end[1]) + 4}">${esc(t.trial_id)}</text>`;
  }
  box.innerHTML = svg(w, h, `${D.metric} of ${known.length} trials over their steps`, body);
}

/* One trial under the pointer, everywhere at once */
const byId = new Map(D.trials.map((t) => [t.trial_id, t]));
let hot = null;
function heat(id) {
  if (id === hot) return;
  hot = id;
  document.querySelectorAll(".hot").forEach((el) => el.classList.remove("hot"));
  if (id !== null) document.querySelectorAll(`[data-trial="${CSS.escape(id)}"]`).forEach((el) => el.classList.add("hot"));
}
document.addEventListener("pointermove", (e) => {
  const el = e.target.closest ? e.target.closest("[data-trial]") : null, tip = $("tip"), inRow = el && el.tagName === "TR";
  heat(el ? el.dataset.trial : null);
  tip.hidden = !el || inRow;
  if (tip.hidden) return;
  const t = byId.get(el.dataset.trial);
  tip.innerHTML = `<b>${esc(t.trial_id)}: ${esc(fmt(t.best_metric))}</b>` + D.parameters.map((p) => `${esc(names[p.path])} ${esc(fmt(t.parameters[p.path]))}`).join("<br>") + `<br>${esc(t.status)}${t.step === null ? "" : ` at step ${esc(t.step)}`}${t.reason ? `<br>${esc(t.reason)}` : ""}`;
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.min(e.clientX + 14, innerWidth - box.width - 8) + "px";
  tip.style.top = (e.clientY + 16 + box.height > innerHeight ? e.clientY - box.height - 10 : e.clientY + 16) + "px";
});

/* The table is there without this script; here it is sorted. */
document.querySelectorAll("#trials th").forEach((th, at) => {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = th.textContent;
  th.replaceChildren(button);
  button.addEventListener("click", () => {
    const down = th.getAttribute("aria-sort") === "ascending", body = document.querySelector("#trials tbody");
    document.querySelectorAll("#trials th").forEach((o) => o.removeAttribute("aria-sort"));
    th.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => { const c = row.cells[at]; return c.dataset.v === undefined ? c.textContent : c.dataset.v === "" ? NaN : +c.dataset.v; };
    const order = (a, b) => { const x = key(a), y = key(b); if (x !== x || y !== y) return (x !== x) - (y !== y); return (down ? -1 : 1) * (x < y ? -1 : x > y ? 1 : 0); };
    body.replaceChildren(...[...body.rows].sort(order));
  });
});

function draw() {
  readRamp();
  if (ranked.length > 1) $("ramp").innerHTML = `Its colour is its rank: worst ${esc(fmt(ranked[ranked.length - 1].best_metric))} <span class="swatch" role="img" aria-label="from pale to strong"></span> best ${esc(fmt(ranked[0].best_metric))}.`;
  drawParallel();
  drawSlices();
  drawCurves();
  if (brushes.size) select();
}
$("clear").addEventListener("click", () => { brushes.clear(); columns.forEach((c, at) => showBrush(at)); select(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
let width = innerWidth;
addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; draw(); } });
draw();
