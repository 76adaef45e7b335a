// One problem: question, candidates as a drawing, rounds, votes, ledger, and what models were sent.
import { html, useEffect, useMemo, useState } from "./lib.js";
import { useAsked } from "./asked.js";
import { data } from "./data.js";
import { cost, described, link, number, oneLine, sampled, UNIT_NAMES, verdict } from "./format.js";
import { graph as made, idOf, pathOf, scorers, votes } from "./graph.js";
import { Bars, Ledger } from "./charts.js";
import { Shaded, Text } from "./text.js";
import { Tree } from "./tree.js";
import { filters } from "./problems.js";

const RULES = {
  box: "in a box",
  mark: "behind a mark such as \u201cthe answer is\u201d",
  bold: "a number in bold",
  label: "a label of a choice",
  last: "the last number, since nothing was marked",
  line: "the last line, since nothing was marked",
  code: "code",
  json: "JSON",
  whole: "the whole text",
  none: "no rule found an answer",
};

function rule(entry, id) {
  const name = entry.rules?.[id];
  if (name === undefined) return null;
  return name === "" ? "by a rule that is not known here" : `${name}: ${RULES[name] || name}`;
}

export function Problem({ source, number: place, line, version, query }) {
  const [entry, error] = useAsked(() => data.problem(place, line), `${place}/${line}`, source.live ? version : "over");
  const back = link(`r/${place}`, filters(query));
  const wish = { source: place, ...filters(query), around: line };
  const there = Boolean(entry || error); // what is looked at comes first
  const [beside] = useAsked(() => (there ? data.rows(wish) : Promise.resolve(null)), `${JSON.stringify(wish)}${there}`, source.known);
  const to = (there) => link(`r/${place}/p/${there}`, filters(query));
  const known = (there) => there !== null && there !== undefined;
  useEffect(() => {
    const key = (event) => {
      if (event.target.closest?.("input, select, textarea, [role=tree]") || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "j" && known(beside?.next)) location.hash = to(beside.next);
      if (event.key === "k" && known(beside?.previous)) location.hash = to(beside.previous);
      if (event.key === "u") location.hash = back;
    };
    addEventListener("keydown", key);
    return () => removeEventListener("keydown", key);
  }, [line, beside]);
  return html`<nav class="pages" aria-label="Problems">
      <a href=${back}>${Object.keys(filters(query)).length ? "filtered problems" : "all problems"}</a>
      ${known(beside?.previous) && html`<a href=${to(beside.previous)} rel="prev">previous</a>`}
      ${known(beside?.next) && html`<a href=${to(beside.next)} rel="next">next</a>`}
      ${known(beside?.place) && html`<span class="note">${number(beside.place + 1)} of ${number(beside.total)}</span>`}
    </nav>
    ${error ? html`<p class="problem" role="alert">${error}</p>` : entry ? html`<${Entry} entry=${entry} live=${source.live} />` : html`<p class="wait">Loading ...</p>`}`;
}

// A problem of a run that is being solved now, until its line is there.
export function LiveProblem({ source, number: place, problem }) {
  const [entry, error] = useAsked(() => data.live(place, problem), `${place}/live/${problem}`, source.version);
  return html`<nav class="pages" aria-label="Problems"><a href=${link(`r/${place}`)}>all problems</a></nav>
    ${entry ? html`<${Entry} entry=${entry} live=${entry.live} />` : error ? html`<p class="problem" role="alert">${error}</p>` : html`<p class="wait">Loading ...</p>`}`;
}

// The messages of the question: those that the main model was sent first.
function question(entry) {
  if (entry.question) return [{ role: "user", content: entry.question }];
  const calls = entry.trace?.calls || [];
  const first = calls.filter((call) => call.prompt !== null && call.prompt !== undefined).sort((a, b) => (b.role === "model") - (a.role === "model") || a.started - b.started)[0];
  return first ? entry.trace.prompts[first.prompt] : null;
}

function Entry({ entry, live }) {
  const { trace } = entry;
  const told = verdict(entry.credit);
  const messages = question(entry);
  return html`<h1>${entry.problem || "problem"}</h1>
    <p class="facts">
      ${entry.credit !== null && html`<span class=${`verdict ${told.class}`}><span aria-hidden="true">${told.mark}</span> ${told.word}</span>`}
      ${entry.gold !== undefined && entry.gold !== null && html`<span>right answer: <b>${oneLine(entry.gold, 200)}</b></span>`}
      ${trace?.strategy && html`<span>answer: <b>${entry.answer === null ? "none" : oneLine(entry.answer, 200)}</b></span>`}
      ${trace?.stopped && html`<span>${live ? "being solved" : `ended: ${trace.stopped}`}</span>`}
      ${live && entry.growing?.samples > 0 && html`<span>${number(entry.growing.tokens)} tokens in ${number(entry.growing.samples)} samples that are being written</span>`}
      ${Object.entries(entry.cost || {}).map(([unit, amount]) => html`<span>${cost(amount, unit)} ${unit === "seconds" || unit === "usd" ? "" : UNIT_NAMES[unit] || unit}</span>`)}
    </p>
    ${entry.error && html`<p class="problem">${entry.error}</p>`}
    ${trace?.error && trace.error !== entry.error && html`<p class="problem">${trace.error}</p>`}
    ${messages &&
    html`<section aria-labelledby="question">
      <h2 id="question">Question</h2>
      <${Messages} messages=${messages} />
    </section>`}
    ${trace ? html`<${Solving} entry=${entry} live=${live} />` : html`<p>Nothing was tried.</p>`}`;
}

function Messages({ messages }) {
  return html`${messages.map(
    (message) => html`<div class=${`message ${message.role}`}>
      <div class="role">${message.role}</div>
      <${Text} text=${typeof message.content === "string" ? message.content : message.content.map((part) => part.text || `[${part.kind}]`).join("")} />
    </div>`,
  )}`;
}

function Solving({ entry, live }) {
  const { trace } = entry;
  const last = Math.max(0, trace.rounds.length - 1);
  const [picked, pick] = useState(null); // a round, or null: the last one, also of a search that goes on
  const round = picked === null ? last : Math.min(picked, last);
  const names = scorers(trace);
  const [scorer, by] = useState(null);
  const used = scorer !== null && names.includes(scorer) ? scorer : names[0] || "rounds";
  const graph = useMemo(() => made(entry, round, used), [entry, round, used]);
  const at = trace.rounds[round];
  const [selected, select] = useState(null);
  const node = graph.nodes.get(selected ?? at?.chosen ?? "") || null;
  const groups = useMemo(() => votes(entry, round), [entry, round]);
  const units = Object.keys(UNIT_NAMES).filter((unit) => trace.calls.some((call) => call.cost[unit] > 0));
  const [unit, count] = useState(null);
  return html`${trace.rounds.length > 0 && html`<${Rounds} trace=${trace} round=${round} pick=${pick} live=${live} />`}
    <div class="split">
      <section aria-labelledby="candidates">
        <h2 id="candidates">Candidates</h2>
        ${names.length > 1 &&
        html`<label class="inline">Colour by <select value=${used} onChange=${(event) => by(event.target.value)}>${names.map((name) => html`<option value=${name}>${name}</option>`)}</select></label>`}
        ${trace.candidates.length ? html`<${Tree} graph=${graph} selected=${node?.id} select=${select} />` : html`<p class="note">There are none${live ? " yet" : ""}.</p>`}
      </section>
      <section class="node" aria-live="polite" aria-label="Chosen candidate">
        ${node ? html`<${Candidate} key=${node.id} entry=${entry} node=${node} graph=${graph} select=${select} />` : html`<p class="note">Choose a candidate in the drawing to read it.</p>`}
      </section>
    </div>
    <div class="split even">
      <section aria-labelledby="votes">
        <h2 id="votes">Votes</h2>
        <${Bars} groups=${groups} chosen=${at?.key} />
      </section>
      ${trace.calls.length > 0 &&
      html`<section aria-labelledby="ledger">
        <h2 id="ledger">Ledger</h2>
        ${units.length > 1 &&
        html`<label class="inline">in <select value=${unit || units[0]} onChange=${(event) => count(event.target.value)}>${units.map((one) => html`<option value=${one}>${UNIT_NAMES[one]}</option>`)}</select></label>`}
        <${Ledger} calls=${trace.calls} unit=${unit || units[0] || "tokens"} until=${picked !== null && at ? at.at : null} rounds=${trace.rounds} />
        <${Lines} calls=${trace.calls} />
      </section>`}
    </div>
    ${trace.notes?.length > 0 &&
    html`<section aria-labelledby="notes">
      <h2 id="notes">Notes of the strategy</h2>
      <ul class="notes">${trace.notes.map((note) => html`<li><${Text} text=${note} plain /></li>`)}</ul>
    </section>`}
    ${trace.calls.length > 0 && html`<${Calls} entry=${entry} graph=${graph} />`}
    ${trace.strategy && html`<p class="note">${described(trace.strategy)}; seed ${trace.seed}; budget ${JSON.stringify(trace.budget?.limits || {})}; ${Object.entries(trace.resources || {}).map(([role, name]) => `${role}: ${name}`).join(", ")}</p>`}
    ${entry.meta && Object.keys(entry.meta).length > 0 && html`<details><summary>How it was recorded</summary><pre tabindex="0">${JSON.stringify(entry.meta, null, 1)}</pre></details>`}`;
}

function Rounds({ trace, round, pick, live }) {
  const at = trace.rounds[round];
  const last = trace.rounds.length - 1;
  return html`<section class="rounds" aria-labelledby="rounds">
    <h2 id="rounds">Rounds</h2>
    ${last > 0 &&
    html`<input
      type="range"
      min="0"
      max=${last}
      value=${round}
      aria-label="Round"
      aria-valuetext=${`round ${round + 1} of ${last + 1}: ${at.answer ?? "no answer"}`}
      onInput=${(event) => pick(Number(event.target.value) === last ? null : Number(event.target.value))}
    />`}
    <p class="facts" role="status">
      <span>round ${round + 1} of ${last + 1}${live ? " so far" : ""}</span>
      <span>answer: <b>${at.answer === null ? "none" : oneLine(at.answer, 120)}</b></span>
      ${at.confidence !== null && html`<span>confidence ${at.confidence.toFixed(2)}</span>`}
      <span>after ${number(at.at)} s</span>
      ${Object.entries(at.cost).filter(([unit]) => unit !== "seconds").map(([unit, amount]) => html`<span>${cost(amount, unit)} ${unit === "usd" ? "" : UNIT_NAMES[unit] || unit}</span>`)}
    </p>
  </section>`;
}

function Candidate({ entry, node, graph, select }) {
  const { candidate } = node;
  const path = pathOf(node, graph.nodes);
  const [how, look] = useState("text");
  const read = rule(entry, node.id);
  const sure = candidate.logprobs?.length ? candidate.logprobs.reduce((a, b) => a + b, 0) / candidate.logprobs.length : null;
  const scores = Object.entries(entry.trace.scores || {}).filter(([, by]) => node.id in by);
  return html`<h3>${candidate.complete ? "Answer" : "Step"} <code>${node.id}</code></h3>
    <dl class="facts">
      ${candidate.complete && html`<div><dt>read</dt><dd><b>${candidate.answer ?? "no answer"}</b>${candidate.key !== null && candidate.key !== candidate.answer ? html` (key <code>${candidate.key}</code>)` : ""}</dd></div>`}
      ${read && html`<div><dt>by rule</dt><dd>${read}</dd></div>`}
      ${node.correct !== null && html`<div><dt>it is</dt><dd><span class=${`verdict ${node.correct ? "right" : "wrong"}`}>${node.correct ? "\u2713 right" : "\u2717 wrong"}</span></dd></div>`}
      ${scores.map(([name, by]) => html`<div><dt>score</dt><dd>${number(by[node.id])} (${name})</dd></div>`)}
      ${node.score !== null && !scores.length && html`<div><dt>score</dt><dd>${number(node.score)}</dd></div>`}
      <div><dt>tokens</dt><dd>${number(candidate.tokens)}</dd></div>
      ${sure !== null && html`<div><dt>mean logprob</dt><dd>${sure.toFixed(3)}</dd></div>`}
      ${node.call && Object.entries(node.call.cost).map(([unit, amount]) => html`<div><dt>${node.call.n > 1 ? `its call, \u00d7${node.call.n}` : "its call"}</dt><dd>${cost(amount, unit)} ${unit === "usd" || unit === "seconds" ? "" : UNIT_NAMES[unit] || unit}</dd></div>`)}
      <div><dt>ended</dt><dd>${candidate.finish}</dd></div>
      ${node.call && html`<div><dt>there after</dt><dd>${number(node.born)} s</dd></div>`}
    </dl>
    ${candidate.parents.length > 0 &&
    html`<p class="note">
      ${candidate.continues ? "continues" : "made from"}
      ${candidate.parents.map((parent, place) => html`${place ? ", " : " "}<button class="plain" onClick=${() => select(parent)}>${parent}</button>`)}
    </p>`}
    <div class="tabs" role="tablist" aria-label="How it is shown">
      ${[["text", "Text"], ["plain", "As written"], ...(candidate.logprobs?.length ? [["tokens", "Tokens"]] : []), ...(node.call?.prompt != null ? [["sent", "What was sent"]] : [])].map(
        ([name, shown]) => html`<button role="tab" aria-selected=${String(how === name)} onClick=${() => look(name)}>${shown}</button>`,
      )}
    </div>
    <div role="tabpanel">
      ${how === "sent" && html`<${Sent} entry=${entry} call=${node.call} graph=${graph} />`}
      ${how === "tokens" && html`<${Shaded} text=${candidate.text} logprobs=${candidate.logprobs} ends=${entry.ends?.[node.id]} />`}
      ${(how === "text" || how === "plain") &&
      html`${path.length > 1 &&
        html`<details>
          <summary>What it continues (${path.length - 1} ${path.length === 2 ? "step" : "steps"})</summary>
          ${path.slice(0, -1).map((step) => html`<div class="step"><${Text} text=${step.candidate.text} plain=${how === "plain"} /></div>`)}
        </details>`}
        ${candidate.text ? html`<${Text} text=${candidate.text} plain=${how === "plain"} />` : html`<p class="note">Nothing was written.</p>`}`}
    </div>`;
}

function Lines({ calls }) {
  const lines = new Map();
  for (const call of calls) {
    const name = `${call.kind} (${call.role})`;
    const line = lines.get(name) || { name, calls: 0, n: 0, failed: 0, prompt: 0, cached: 0, completion: 0, exact: true };
    line.calls += 1;
    line.n += call.n;
    line.failed += call.failed;
    line.prompt += call.charged.prompt;
    line.cached += call.charged.cached;
    line.completion += call.charged.completion;
    line.exact = line.exact && call.exact;
    lines.set(name, line);
  }
  return html`<div class="scroll"><table>
    <thead><tr>${["", "calls", "samples", "failed", "prompt", "cached", "completion"].map((name) => html`<th scope="col" class="num">${name}</th>`)}</tr></thead>
    <tbody>${[...lines.values()].map((line) => html`<tr><th scope="row">${line.name}</th>${[line.calls, line.n, line.failed, line.prompt, line.cached].map((value) => html`<td class="num">${number(value)}</td>`)}<td class="num">${line.exact ? "" : "\u2264 "}${number(line.completion)}</td></tr>`)}</tbody>
  </table></div>`;
}

function Sent({ entry, call, graph }) {
  const messages = entry.trace.prompts?.[call.prompt];
  const after = call.after ? graph.nodes.get(call.after) : null;
  const prefix = after ? pathOf(after, graph.nodes).map((node) => node.candidate.text).join("") : null;
  if (!messages) return html`<p class="note">${call.prompt == null && !("prompt" in call) ? "This was recorded before prompts were kept." : "No language model was asked."}</p>`;
  return html`${call.sampling && html`<p class="note">${sampled(call.sampling)}</p>`}
    <${Messages} messages=${messages} />
    ${call.after &&
    html`<div class="message assistant">
      <div class="role">beginning of the answer, which it had to continue (${call.after})</div>
      ${prefix === null ? html`<p class="note">It is not among the candidates.</p>` : html`<${Text} text=${prefix} plain />`}
    </div>`}`;
}

function Calls({ entry, graph }) {
  const { calls } = entry.trace;
  const [most, more] = useState(50);
  const sorted = useMemo(() => [...calls].sort((a, b) => a.started - b.started), [calls]);
  return html`<section aria-labelledby="calls">
    <h2 id="calls">Calls</h2>
    <p class="note">In the order in which they began. Open one to see what was sent.</p>
    <div class="calls">${sorted.slice(0, most).map((call) => html`<${Call} key=${call.address.join("/")} entry=${entry} call=${call} graph=${graph} />`)}</div>
    ${most < sorted.length && html`<button onClick=${() => more(most + 200)}>Show ${Math.min(200, sorted.length - most)} more of ${sorted.length}</button>`}
  </section>`;
}

function Call({ entry, call, graph }) {
  const [open, turn] = useState(false);
  const failed = call.outcome !== "ok" || call.failed > 0;
  return html`<details class="call" onToggle=${(event) => turn(event.target.open)}>
    <summary>
      <code>${call.address.join("/")}</code> ${call.kind} (${call.role})${call.n > 1 ? ` \u00d7${call.n}` : ""}${" "}
      <span class="note">${number(call.started)} to ${number(call.ended)} s; ${number(call.charged.prompt)} + ${call.exact ? "" : "\u2264"}${number(call.charged.completion)} tokens${call.charged.cached ? `, ${number(call.charged.cached)} cached` : ""}</span>
      ${failed && html` <span class="problem">${call.outcome === "ok" ? `${call.failed} failed` : call.outcome}</span>`}
    </summary>
    ${open && html`${call.error && html`<p class="problem">${call.error}</p>`}<${Sent} entry=${entry} call=${call} graph=${graph} />`}
  </details>`;
}
