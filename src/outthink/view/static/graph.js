// The candidates of a problem as a graph, at one moment of its solving.

const MANY = 24; // children that end there and are shown one by one; more are gathered by their answers

export const idOf = (candidate) => candidate.address.join("/");

// When each candidate was there, in seconds: at the end of the call that wrote it; 0 where that is not known.
export function births(trace) {
  const lanes = new Map();
  for (const call of trace.calls) {
    const lane = call.address.slice(0, -1).join("/");
    const first = call.address[call.address.length - 1];
    if (!lanes.has(lane)) lanes.set(lane, []);
    lanes.get(lane).push({ first, end: first + call.n, ended: call.ended, call });
  }
  const born = new Map();
  const wrote = new Map();
  for (const candidate of trace.candidates) {
    const child = candidate.address[candidate.address.length - 1];
    const group = (lanes.get(candidate.address.slice(0, -1).join("/")) || []).find((one) => child >= one.first && child < one.end);
    const parents = candidate.parents.map((parent) => born.get(parent) || 0);
    born.set(idOf(candidate), group ? group.ended : Math.max(0, ...parents));
    if (group) wrote.set(idOf(candidate), group.call);
  }
  return { born, wrote };
}

// The scores that are known at a round: of rounds up to it, or of a scorer by its name.
export function scoresAt(trace, round, scorer) {
  if (scorer !== "rounds") return new Map(Object.entries(trace.scores?.[scorer] || {}));
  const scores = new Map();
  trace.rounds.slice(0, round + 1).forEach((one) => {
    if (one.scores) one.candidates.forEach((id, place) => one.scores[place] !== null && scores.set(id, one.scores[place]));
  });
  return scores;
}

export function scorers(trace) {
  const named = Object.keys(trace.scores || {}).filter((name) => Object.keys(trace.scores[name]).length);
  return trace.rounds.some((round) => round.scores) ? [...named, "rounds"] : named;
}

// {nodes: Map(id -> node), roots}; a node has parent, others (further parents), children, kept, chosen, score, there.
export function graph(entry, round, scorer) {
  const { trace } = entry;
  const { born, wrote } = births(trace);
  const scores = scoresAt(trace, round, scorer);
  const at = trace.rounds[round];
  const last = round >= trace.rounds.length - 1;
  const nodes = new Map();
  for (const candidate of trace.candidates) {
    const id = idOf(candidate);
    nodes.set(id, {
      id,
      candidate,
      parent: null,
      others: [],
      children: [],
      score: scores.get(id) ?? null,
      call: wrote.get(id) || null,
      born: born.get(id),
      there: last || !at || born.get(id) <= at.at + 1e-6,
      kept: !at,
      chosen: false,
      correct: entry.correct?.[id] ?? null,
      rule: entry.rules?.[id],
    });
  }
  for (const node of nodes.values()) {
    const parents = node.candidate.parents.filter((parent) => nodes.has(parent) && parent !== node.id);
    node.parent = parents[0] || null;
    node.others = parents.slice(1);
  }
  for (const node of nodes.values()) {
    // records of others could hold a circle, which no drawing can
    for (let above = node.parent, steps = 0; above; above = nodes.get(above).parent) {
      if (above === node.id || ++steps > nodes.size) {
        node.parent = null;
        break;
      }
    }
  }
  for (const node of nodes.values()) if (node.parent) nodes.get(node.parent).children.push(node);
  const mark = (id, name, all) => {
    const seen = new Set();
    const wait = [id];
    while (wait.length) {
      const node = nodes.get(wait.pop());
      if (!node || seen.has(node.id)) continue;
      seen.add(node.id);
      node[name] = true;
      if (node.parent && (node.candidate.continues || all)) wait.push(node.parent);
      if (all) wait.push(...node.others);
    }
  };
  if (at) {
    at.candidates.forEach((id) => mark(id, "kept", true));
    if (at.chosen) {
      mark(at.chosen, "kept", true);
      mark(at.chosen, "chosen", false);
    }
  }
  return { nodes, roots: [...nodes.values()].filter((node) => !node.parent) };
}

// The whole text of a node, with what it continues.
export function pathOf(node, nodes) {
  const path = [node];
  while (path[path.length - 1].candidate.continues && path.length <= nodes.size) {
    const above = nodes.get(path[path.length - 1].candidate.parents[0]);
    if (!above) break;
    path.push(above);
  }
  return path.reverse();
}

// The same as a hierarchy for drawing, under one root; many leaves of one node are gathered by their answers.
export function hierarchy({ roots }, opened, collapsed) {
  const build = (node) => ({ id: node.id, node, children: collapsed.has(node.id) ? [] : gathered(node.id, node.children), hides: node.children.length });
  const gathered = (owner, children) => {
    const leaves = children.filter((child) => !child.children.length);
    if (leaves.length <= MANY) return children.map(build);
    const groups = new Map();
    for (const leaf of leaves) {
      const { complete, answer, key } = leaf.candidate;
      const name = complete ? (key === null ? "no answer" : (answer ?? key)) : "not ended";
      if (!groups.has(name)) groups.set(name, []);
      groups.get(name).push(leaf);
    }
    const inner = children.filter((child) => child.children.length).map(build);
    const shown = [...groups.entries()]
      .sort((a, b) => b[1].length - a[1].length)
      .map(([name, members]) => {
        if (members.length === 1) return build(members[0]);
        const id = `${owner}\u0000${name}`;
        return { id, group: name, members, children: opened.has(id) ? members.map(build) : [], hides: members.length };
      });
    return [...inner, ...shown];
  };
  return { id: "", root: true, children: gathered("", roots), hides: roots.length };
}

// Nodes that are folded at first in a large tree: those under which nothing was kept.
export function foldedAtFirst(nodes) {
  if (nodes.size <= 150) return new Set();
  return new Set([...nodes.values()].filter((node) => !node.kept && node.children.length).map((node) => node.id));
}

// [{key, answer, count, weight}] of the candidates that a round chose among, the most frequent first.
export function votes(entry, round) {
  const { trace } = entry;
  const at = trace.rounds[round];
  const byId = new Map(trace.candidates.map((candidate) => [idOf(candidate), candidate]));
  const among = at ? at.candidates.map((id) => byId.get(id)) : trace.candidates.filter((one) => one.complete);
  const counts = new Map();
  among.forEach((candidate, place) => {
    if (!candidate) return;
    const key = candidate.key;
    const name = key === null ? null : key;
    if (!counts.has(name)) counts.set(name, { key, answer: candidate.answer, count: 0, weight: 0, scored: false });
    const group = counts.get(name);
    group.count += 1;
    const score = at?.scores?.[place];
    if (typeof score === "number") {
      group.weight += score;
      group.scored = true;
    }
  });
  return [...counts.values()].sort((a, b) => b.count - a.count);
}
