// The drawing of the candidates: a tidy tree by first parents, further parents as dashed lines; zoom, fold, keyboard.
import { html, d3, useEffect, useMemo, useRef, useState, useLayoutEffect } from "./lib.js";
import { foldedAtFirst, hierarchy } from "./graph.js";
import { number, oneLine } from "./format.js";

const ROW = 22;
const STEP = 190;
const SMALL = 0.45; // scale below which labels cannot be read
const FIRST_SIGHT = { left: -30, right: 800, top: -300, bottom: 300, small: false }; // until the size is known
const FEW = 300; // nodes up to which all are drawn, in sight or not
const scale = d3.interpolateRgbBasis(["#440154", "#3b528b", "#21918c", "#5ec962", "#fde725"]);

function label(datum) {
  if (datum.root) return "question";
  if (datum.group !== undefined) return `${oneLine(datum.group, 18)} \u00d7${datum.members.length}`;
  const { candidate, correct } = datum.node;
  const mark = correct === null ? "" : correct ? " \u2713" : " \u2717";
  if (candidate.complete) return (candidate.answer === null ? "no answer" : oneLine(candidate.answer, 22)) + mark;
  const text = oneLine(candidate.text, 24);
  return (text || "(empty)") + mark;
}

function described(datum) {
  if (datum.root) return "the question";
  if (datum.group !== undefined) return `${datum.members.length} candidates with the answer ${datum.group}`;
  const { node } = datum;
  const parts = [node.candidate.complete ? "answer" : "step", label(datum)];
  if (node.score !== null) parts.push(`score ${number(node.score)}`);
  parts.push(`${node.candidate.tokens} tokens`);
  if (node.chosen) parts.push("on the chosen path");
  else if (!node.kept) parts.push("not taken further");
  return parts.join(", ");
}

export function laidOut(root) {
  const tree = d3.hierarchy(root, (datum) => datum.children);
  d3.tree().nodeSize([ROW, STEP]).separation(() => 1)(tree);
  return tree;
}

function filled(datum, low, high) {
  const score = datum.node?.score ?? null;
  return score === null ? null : scale(high > low ? (score - low) / (high - low) : 0.5);
}

function Mark({ datum, low, high }) {
  if (datum.root) return html`<circle r="6" class="question" />`;
  if (datum.group !== undefined) return html`<rect x="-7" y="-7" width="14" height="14" rx="2" class="group" />`;
  const { score, candidate } = datum.node;
  const fill = filled(datum, low, high);
  const look = { class: `mark ${score === null ? "unscored" : ""}`, ...(fill ? { fill } : {}) };
  if (!candidate.complete) return html`<circle r="5.5" ...${look} />`;
  return html`<rect x="-5.5" y="-5.5" width="11" height="11" ...${look} />`;
}

function classes(datum) {
  if (!datum.node) return "node";
  const { chosen, kept, there, candidate, correct } = datum.node;
  return [
    "node",
    chosen && "chosen",
    !kept && "dimmed",
    !there && "later",
    candidate.complete && candidate.key === null && "invalid",
    correct === true && "correct",
    correct === false && "incorrect",
  ].filter(Boolean).join(" ");
}

// The edges as few paths, one for each look, those of the chosen path on top; `wanted` tells which are in sight.
function edges(tree, wanted) {
  const paths = new Map();
  for (const { source, target } of tree.links()) {
    if (!wanted(source.x, source.y, target.x, target.y)) continue;
    const middle = (source.y + target.y) / 2;
    const { node } = target.data;
    const look = node ? `${node.chosen ? "chosen" : ""} ${node.kept ? "" : "dimmed"} ${node.there ? "" : "later"}` : "";
    const d = `M${source.y},${source.x}C${middle},${source.x} ${middle},${target.x} ${target.y},${target.x}`;
    if (!paths.has(look)) paths.set(look, []);
    paths.get(look).push(d);
  }
  return [...paths].sort(([a], [b]) => a.includes("chosen") - b.includes("chosen"));
}

// Edges from further parents, in two paths.
function furtherEdges(shown, places, wanted) {
  const paths = new Map();
  for (const point of shown) {
    for (const other of point.data.node?.others || []) {
      const from = places.get(other);
      if (!from || !wanted(from.x, from.y, point.x, point.y)) continue;
      const look = `further ${point.data.node.kept ? "" : "dimmed"}`;
      const d = `M${from.y},${from.x}Q${(from.y + point.y) / 2},${Math.max(from.x, point.x) + 14} ${point.y},${point.x}`;
      if (!paths.has(look)) paths.set(look, []);
      paths.get(look).push(d);
    }
  }
  return [...paths];
}

// One candidate: its mark and its label; where there are many and they are too small for labels, a dot.
function drawn(point, low, high, dot) {
  const { data } = point;
  const shared = {
    key: data.id,
    id: `n:${data.id}`,
    role: "treeitem",
    "aria-level": point.depth + 1,
    "aria-label": described(data),
    "aria-expanded": data.hides ? String(Boolean(point.children)) : undefined,
  };
  if (dot) {
    const fill = filled(data, low, high);
    return html`<rect ...${shared} class=${`${classes(data)} dot ${fill ? "" : "unscored"}`} x=${point.y - 6} y=${point.x - 6} width="12" height="12" ...${fill ? { fill } : {}} />`;
  }
  return html`<g ...${shared} class=${classes(data)} transform=${`translate(${point.y},${point.x})`}>
    <${Mark} datum=${data} low=${low} high=${high} />
    <text x="10" dy="0.32em">${label(data)}${!point.children && data.hides && data.group === undefined ? ` +${data.hides}` : ""}</text>
  </g>`;
}

export function Tree({ graph, selected, select }) {
  const svg = useRef();
  const inner = useRef();
  const zoomer = useRef();
  const size = useRef({ width: 600, height: 160 });
  const [opened, open] = useState(() => new Set());
  const [collapsed, collapse] = useState(() => foldedAtFirst(graph.nodes));
  const [focus, move] = useState(selected || "");
  const [sight, look] = useState(FIRST_SIGHT);

  const tree = useMemo(() => laidOut(hierarchy(graph, opened, collapsed)), [graph, opened, collapsed]);
  const shown = useMemo(() => tree.descendants(), [tree]);
  const places = useMemo(() => new Map(shown.map((point) => [point.data.id, point])), [shown]);
  const [low, high] = useMemo(() => {
    const scores = [...graph.nodes.values()].map((node) => node.score).filter((score) => score !== null);
    return scores.length ? [Math.min(...scores), Math.max(...scores)] : [0, 1];
  }, [graph]);
  const box = useMemo(() => {
    let [top, bottom, right] = [0, 0, 0];
    for (const { x, y } of shown) [top, bottom, right] = [Math.min(top, x), Math.max(bottom, x), Math.max(right, y)];
    return { top: top - 24, bottom: bottom + 24, left: -30, right: right + STEP };
  }, [shown]);
  const height = Math.max(160, Math.min(560, box.bottom - box.top));

  const see = () => {
    const { x, y, k } = d3.zoomTransform(svg.current);
    const { width, height } = size.current;
    const now = { left: -x / k, right: (width - x) / k, top: -y / k, bottom: (height - y) / k, small: k < SMALL };
    look((before) => (before.small === now.small && covers(before, now) ? before : widened(now)));
  };
  const place = (k, x, y) => d3.select(svg.current).call(zoomer.current.transform, d3.zoomIdentity.translate(x, y).scale(k));
  const fit = () => {
    const { width } = size.current;
    const k = Math.min(1, width / (box.right - box.left), height / (box.bottom - box.top));
    place(k, (width - k * (box.right + box.left)) / 2, (height - k * (box.bottom + box.top)) / 2);
  };
  const readable = () => {
    // as large as can be read, beginning at the question; what does not fit is a drag away
    const { width } = size.current;
    const k = Math.max(0.8, Math.min(1, width / (box.right - box.left), height / (box.bottom - box.top)));
    const whole = k * (box.bottom - box.top) <= height;
    const x = k * (box.right - box.left) <= width ? (width - k * (box.right + box.left)) / 2 : -k * box.left + 6;
    place(k, x, whole ? (height - k * (box.bottom + box.top)) / 2 : height / 2);
  };
  const by = (factor) => d3.select(svg.current).call(zoomer.current.scaleBy, factor);

  useLayoutEffect(() => {
    size.current = { width: svg.current.clientWidth || 600, height };
    zoomer.current = d3
      .zoom()
      .scaleExtent([0.02, 4])
      .filter((event) => (event.type === "wheel" ? event.ctrlKey || event.metaKey || document.activeElement === svg.current : !event.button))
      .on("zoom", (event) => {
        inner.current.setAttribute("transform", event.transform);
        see();
      });
    d3.select(svg.current).call(zoomer.current).on("dblclick.zoom", null);
    readable();
    const resized = new ResizeObserver(([entry]) => {
      size.current.width = entry.contentRect.width || 600;
      see();
    });
    resized.observe(svg.current);
    return () => resized.disconnect();
  }, []);
  useLayoutEffect(() => {
    size.current.height = height;
    see();
  }, [height]);

  const toggle = (datum) => {
    if (datum.root) return;
    const [set, change] = datum.group !== undefined ? [opened, open] : [collapsed, collapse];
    if (datum.group === undefined && !datum.node.children.length) return;
    const next = new Set(set);
    if (!next.delete(datum.id)) next.add(datum.id);
    change(next);
  };
  const choose = (datum) => {
    move(datum.id);
    if (datum.node) select(datum.id);
    else toggle(datum);
  };
  const pointed = (act) => (event) => {
    const element = event.target.closest(".node");
    const point = element && places.get(element.id.slice(2));
    if (point) act(point.data);
  };
  const foldAll = () => collapse(new Set([...graph.nodes.values()].filter((node) => node.children.length && node.parent === null).map((node) => node.id)));
  const unfoldAll = () => collapse(new Set());

  const key = (event) => {
    const here = places.get(focus) || tree;
    const siblings = here.parent ? here.parent.children : [here];
    const place = siblings.indexOf(here);
    let to = null;
    if (event.key === "ArrowRight") {
      if (!here.children && here.data.hides) toggle(here.data);
      else to = here.children?.[0];
    } else if (event.key === "ArrowLeft") to = here.parent;
    else if (event.key === "ArrowDown") to = siblings[place + 1] || nextOf(here, 1, shown);
    else if (event.key === "ArrowUp") to = siblings[place - 1] || nextOf(here, -1, shown);
    else if (event.key === "Enter") choose(here.data);
    else if (event.key === " ") toggle(here.data);
    else if (event.key === "+") by(1.3);
    else if (event.key === "-") by(1 / 1.3);
    else if (event.key === "0") fit();
    else return;
    event.preventDefault();
    event.stopPropagation();
    if (!to) return;
    move(to.data.id);
    if (to.data.node) select(to.data.id);
    const { width } = size.current;
    const at = d3.zoomTransform(svg.current).apply([to.y, to.x]);
    if (at[0] < 20 || at[0] > width - 80 || at[1] < 20 || at[1] > height - 20) {
      d3.select(svg.current).call(zoomer.current.translateTo, to.y, to.x);
    }
  };

  const many = shown.length > FEW;
  const { small } = sight;
  const window = many ? sight : null;
  // those that are chosen are drawn wherever they are
  const further = [focus, selected].filter((id) => window && places.has(id) && !inside(places.get(id), window));
  const lines = useMemo(() => {
    const wanted = (x, y, toX, toY) =>
      !window || (Math.max(x, toX) >= window.top && Math.min(x, toX) <= window.bottom && Math.max(y, toY) >= window.left && Math.min(y, toY) <= window.right);
    return [...edges(tree, wanted), ...furtherEdges(shown, places, wanted)].map(([look, paths]) => html`<path class=${`edge ${look}`} d=${paths.join("")} />`);
  }, [tree, window]);
  const marks = useMemo(() => {
    const points = window ? shown.filter((point) => inside(point, window) || further.includes(point.data.id)) : shown;
    return points.map((point) => drawn(point, low, high, many && small));
  }, [shown, window, low, high, further.join("\u0000")]);
  const body = useMemo(() => html`<g onClick=${pointed(choose)} onDblClick=${pointed(toggle)}>${lines}${marks}</g>`, [lines, marks, opened, collapsed]);
  const ring = places.get(selected);
  const at = places.get(focus);
  useEffect(() => {
    if (selected) move(selected);
  }, [selected]);
  return html`<div class="drawing">
    <div class="tools" role="toolbar" aria-label="Drawing">
      <button onClick=${() => by(1.3)} aria-label="Zoom in">+</button>
      <button onClick=${() => by(1 / 1.3)} aria-label="Zoom out">\u2212</button>
      <button onClick=${() => fit()}>Fit</button>
      <button onClick=${foldAll}>Fold</button>
      <button onClick=${unfoldAll}>Unfold</button>
      <span class="note">${number(graph.nodes.size)} candidates</span>
    </div>
    <svg
      ref=${svg}
      class=${`tree ${small ? "small" : ""} ${many ? "many" : ""}`}
      height=${height}
      tabindex="0"
      role="tree"
      aria-label="Candidates; arrow keys move, Enter shows one, Space folds, plus and minus zoom, 0 shows all"
      aria-activedescendant=${at ? `n:${at.data.id}` : undefined}
      onKeyDown=${key}
    >
      <g ref=${inner}>
        ${at && html`<circle class="focus" cx=${at.y} cy=${at.x} r="11" />`}
        ${ring && html`<circle class="ring" cx=${ring.y} cy=${ring.x} r="9" />`}
        ${body}
      </g>
    </svg>
    <${Legend} graph=${graph} low=${low} high=${high} />
  </div>`;
}

const inside = ({ x, y }, { left, right, top, bottom }) => x >= top && x <= bottom && y >= left - STEP && y <= right;

const covers = (outer, inner) =>
  outer.left <= inner.left && outer.right >= inner.right && outer.top <= inner.top && outer.bottom >= inner.bottom;

// What is drawn beyond what is in sight, so that a small move draws nothing anew.
function widened({ left, right, top, bottom, small }) {
  const [across, down] = [(right - left) / 2, (bottom - top) / 2];
  return { left: left - across, right: right + across, top: top - down, bottom: bottom + down, small };
}

// The next one of the same depth, above or below.
function nextOf(here, step, shown) {
  const level = shown.filter((point) => point.depth === here.depth).sort((a, b) => a.x - b.x);
  return level[level.indexOf(here) + step];
}

function Legend({ graph, low, high }) {
  const nodes = [...graph.nodes.values()];
  const scored = nodes.some((node) => node.score !== null);
  const steps = [0, 0.25, 0.5, 0.75, 1];
  return html`<p class="legend note">
    ${nodes.some((node) => !node.candidate.complete) && html`<span><svg width="12" height="12"><circle cx="6" cy="6" r="5" class="mark unscored" /></svg> step or cut</span>`}
    <span><svg width="12" height="12"><rect x="1" y="1" width="10" height="10" class="mark unscored" /></svg> answer</span>
    ${nodes.some((node) => node.chosen) && html`<span><svg width="18" height="12"><path d="M0,6H18" class="edge chosen" /></svg> chosen</span>`}
    ${nodes.some((node) => node.others.length) && html`<span><svg width="18" height="12"><path d="M0,6H18" class="edge further" /></svg> further parent</span>`}
    ${nodes.some((node) => !node.kept) && html`<span class="faint">faint: not taken further</span>`}
    ${scored &&
    html`<span>score ${number(low)} ${steps.map((t) => html`<svg width="12" height="12"><rect width="12" height="12" fill=${scale(t)} /></svg>`)} ${number(high)}</span>`}
  </p>`;
}
