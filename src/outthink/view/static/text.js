// Text of models and of questions. It is untrusted: it becomes text nodes, formulas drawn by KaTeX node by node, and
// code coloured by highlight.js, whose markup DOMPurify cleans. Nothing in it is a link, and none of it is markup.
import { html, katex, purify, hljs, useRef, useState, useLayoutEffect } from "./lib.js";

const FOLD = 1600; // characters of a text that are shown at first
const LONGEST_FORMULA = 2000;
const PARTS =
  /```([A-Za-z0-9_+#-]*)[^\n]*\n([\s\S]*?)(?:```|$)|\$\$([\s\S]+?)\$\$|\\\[([\s\S]+?)\\\]|\\\(([\s\S]+?)\\\)|\$(?!\s)((?:\\.|[^$\\\n])+?)(?<!\s)\$(?!\d)/g;

// [{kind: "text" | "code" | "math", text, language?, display?}]
export function parts(text) {
  const pieces = [];
  let end = 0;
  for (const match of text.matchAll(PARTS)) {
    if (match.index > end) pieces.push({ kind: "text", text: text.slice(end, match.index) });
    const [whole, language, code, dollars, brackets, parens, dollar] = match;
    end = match.index + whole.length;
    const formula = dollars ?? brackets ?? parens ?? dollar;
    if (code !== undefined) pieces.push({ kind: "code", text: code, language });
    else if (formula.length > LONGEST_FORMULA) pieces.push({ kind: "text", text: whole });
    else pieces.push({ kind: "math", text: formula, source: whole, display: (dollars ?? brackets) !== undefined });
  }
  if (end < text.length) pieces.push({ kind: "text", text: text.slice(end) });
  return pieces;
}

function Formula({ text, source, display }) {
  const place = useRef();
  useLayoutEffect(() => {
    try {
      katex.render(text, place.current, {
        displayMode: display,
        throwOnError: true,
        trust: false,
        strict: "ignore",
        maxExpand: 200,
        maxSize: 10,
      });
    } catch {
      place.current.textContent = source;
    }
  }, [text]);
  return html`<span class=${display ? "math display" : "math"} ref=${place}></span>`;
}

export function Code({ text, language }) {
  const place = useRef();
  useLayoutEffect(() => {
    if (language && hljs.getLanguage(language) && text.length < 20000) {
      const marked = hljs.highlight(text, { language, ignoreIllegals: true }).value;
      const clean = purify.sanitize(marked, {
        ALLOWED_TAGS: ["span"],
        ALLOWED_ATTR: ["class"],
        RETURN_DOM_FRAGMENT: true,
      });
      place.current.replaceChildren(clean);
    } else place.current.textContent = text;
  }, [text, language]);
  return html`<pre tabindex="0"><code ref=${place}></code></pre>`;
}

// A text with its formulas and its code, folded where it is long.
export function Text({ text, plain }) {
  const [whole, unfold] = useState(false);
  const long = text.length > FOLD * 1.25;
  const shown = long && !whole ? text.slice(0, FOLD) : text;
  const pieces = plain ? [{ kind: "text", text: shown }] : parts(shown);
  return html`<div class="text">
    ${pieces.map((part) => {
      if (part.kind === "math") return html`<${Formula} ...${part} />`;
      if (part.kind === "code") return html`<${Code} ...${part} />`;
      return html`<span>${part.text}</span>`;
    })}
    ${long &&
    html`<button class="fold" aria-expanded=${whole} onClick=${() => unfold(!whole)}>
      ${whole ? "Show less" : `Show all ${text.length.toLocaleString("en")} characters`}
    </button>`}
  </div>`;
}

const level = (logprob) => Math.max(0, Math.min(7, Math.floor(Math.exp(logprob) * 8)));

// The tokens of a text shaded by how likely each was; `ends` are the places where they end, if that is known.
export function Shaded({ text, logprobs, ends }) {
  const [whole, unfold] = useState(false);
  if (!ends || ends.length !== logprobs.length) {
    const shown = logprobs.slice(0, 600);
    return html`<div>
      <div class="strip" role="img" aria-label=${`Probabilities of ${logprobs.length} tokens`}>
        ${shown.map((value, place) => html`<i class=${`lp${level(value)}`} title=${told(value, place)}></i>`)}
      </div>
      <p class="note">
        One mark for each token${shown.length < logprobs.length ? ` of the first ${shown.length}` : ""}. Where in the
        text they end was not recorded; name the model (--model) to see it in the text.
      </p>
    </div>`;
  }
  const most = whole ? logprobs.length : Math.min(logprobs.length, 500);
  return html`<div class="text shaded">
    ${logprobs
      .slice(0, most)
      .map(
        (value, place) =>
          html`<span class=${`lp${level(value)}`} title=${told(value, place)}
            >${text.slice(place ? ends[place - 1] : 0, ends[place])}</span
          >`,
      )}
    ${most < logprobs.length && html`<button class="fold" onClick=${() => unfold(true)}>Show all ${logprobs.length} tokens</button>`}
  </div>`;
}

const told = (value, place) => `token ${place + 1}: probability ${Math.exp(value).toPrecision(3)}, logprob ${value.toFixed(2)}`;
