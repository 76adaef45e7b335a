// Small charts: bars of votes, the ledger as it grew, accuracy against cost.
import { html, useMemo } from "./lib.js";
import { cost, number, oneLine, share, UNIT_NAMES } from "./format.js";

// Okabe and Ito's colours, which colour-blind people can tell apart; each also has a shape of its own.
export const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C"];
const SHAPES = ["circle", "square", "triangle", "diamond", "cross", "down"];

export function Shape({ place, x, y, size = 6 }) {
  const colour = COLOURS[place % COLOURS.length];
  const s = size;
  const d = {
    circle: `M${-s},0a${s},${s} 0 1,0 ${2 * s},0a${s},${s} 0 1,0 ${-2 * s},0`,
    square: `M${-s},${-s}H${s}V${s}H${-s}Z`,
    triangle: `M0,${-s}L${s},${s}H${-s}Z`,
    diamond: `M0,${-1.3 * s}L${s},0L0,${1.3 * s}L${-s},0Z`,
    cross: `M${-s},${-s / 3}H${-s / 3}V${-s}H${s / 3}V${-s / 3}H${s}V${s / 3}H${s / 3}V${s}H${-s / 3}V${s / 3}H${-s}Z`,
    down: `M0,${s}L${s},${-s}H${-s}Z`,
  }[SHAPES[place % SHAPES.length]];
  return html`<path d=${d} transform=${`translate(${x},${y})`} fill=${colour} class="point" />`;
}

export function Bars({ groups, chosen }) {
  const total = groups.reduce((sum, group) => sum + group.count, 0);
  const most = Math.max(1, ...groups.map((group) => group.count));
  const scored = groups.some((group) => group.scored);
  if (!total) return html`<p class="note">No votes yet.</p>`;
  return html`<table class="bars">
    <caption class="hidden">Votes by answer</caption>
    <thead><tr><th scope="col">answer</th><th scope="col">votes</th>${scored && html`<th scope="col" class="num">score</th>`}</tr></thead>
    <tbody>
      ${groups.slice(0, 30).map(
        (group) => html`<tr class=${group.key !== null && group.key === chosen ? "chosen" : ""}>
          <th scope="row">${group.key === null ? html`<em>none</em>` : oneLine(group.answer ?? group.key, 40)}</th>
          <td>
            <svg height="14" width="100%" aria-hidden="true"><rect height="14" width=${`${(80 * group.count) / most}%`} class="bar" /></svg>
            ${number(group.count)}
          </td>
          ${scored && html`<td class="num">${group.scored ? number(group.weight) : "-"}</td>`}
        </tr>`,
      )}
    </tbody>
  </table>
  ${groups.length > 30 && html`<p class="note">... and ${groups.length - 30} more answers.</p>`}`;
}

function ticks(most, count = 4) {
  if (!(most > 0)) return [0];
  const raw = most / count;
  const base = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * base).find((size) => size >= raw);
  return Array.from({ length: Math.floor(most / step + 1e-9) + 1 }, (_, place) => place * step);
}

// What had been charged by when, by kind and role, stacked; `until` is a moment that is marked.
export function Ledger({ calls, unit, until, rounds }) {
  return useMemo(() => ledger(calls, unit, until, rounds), [calls, unit, until, rounds]);
}

function ledger(calls, unit, until, rounds) {
  const lines = grown(calls, unit);
  if (!lines.total) return html`<p class="note">No call was charged in ${UNIT_NAMES[unit]}.</p>`;
  const width = 640;
  const height = 190;
  const [left, right, top, bottom] = [58, 10, 8, 30];
  const end = 1.03 * Math.max(lines.end, ...rounds.map((round) => round.at), 1e-9);
  for (const area of lines.areas) area.push({ ...area[area.length - 1], at: end });
  const x = (seconds) => left + ((width - left - right) * seconds) / end;
  const y = (amount) => height - bottom - ((height - top - bottom) * amount) / lines.total;
  return html`<figure>
    <svg viewBox=${`0 0 ${width} ${height}`} class="chart" role="img" aria-label=${`${UNIT_NAMES[unit]} charged over time: ${cost(lines.total, unit)} after ${number(end)} seconds`}>
      ${ticks(lines.total).map((tick) => html`<g class="tick"><path d=${`M${left},${y(tick)}H${width - right}`} /><text x=${left - 6} y=${y(tick)} dy="0.32em" text-anchor="end">${number(tick)}</text></g>`)}
      ${ticks(end).map((tick) => html`<g class="tick"><text x=${x(tick)} y=${height - bottom + 14} text-anchor="middle">${number(tick)} s</text></g>`)}
      ${lines.areas.map(
        (area, place) => html`<path class="area" fill=${COLOURS[place % COLOURS.length]} d=${`M${area.map((point) => `${x(point.at)},${y(point.high)}`).join("L")}L${[...area].reverse().map((point) => `${x(point.at)},${y(point.low)}`).join("L")}Z`}><title>${lines.names[place]}</title></path>`,
      )}
      ${rounds.map((round) => html`<path class="round" d=${`M${x(round.at)},${height - bottom}v5`} />`)}
      ${until !== null && html`<path class="now" d=${`M${x(until)},${top}V${height - bottom}`} />`}
    </svg>
    <figcaption class="legend note">
      ${lines.names.map((name, place) => html`<span><i class="swatch" style=${{ background: COLOURS[place % COLOURS.length] }}></i> ${name}</span>`)}
    </figcaption>
  </figure>`;
}

function grown(calls, unit) {
  const charged = calls.filter((call) => call.cost[unit] > 0).sort((a, b) => a.ended - b.ended);
  const names = [...new Set(charged.map((call) => `${call.kind} (${call.role})`))];
  const sums = names.map(() => 0);
  const moments = [{ at: 0, sums: [...sums] }];
  for (const call of charged) {
    moments.push({ at: call.ended, sums: [...sums] });
    sums[names.indexOf(`${call.kind} (${call.role})`)] += call.cost[unit];
    moments.push({ at: call.ended, sums: [...sums] });
  }
  const thin = moments.length > 2000 ? moments.filter((_, place) => place % Math.ceil(moments.length / 2000) === 0 || place === moments.length - 1) : moments;
  const areas = names.map((_, place) =>
    thin.map((moment) => {
      const low = moment.sums.slice(0, place).reduce((a, b) => a + b, 0);
      return { at: moment.at, low, high: low + moment.sums[place] };
    }),
  );
  return { names, areas, total: sums.reduce((a, b) => a + b, 0), end: charged.length ? charged[charged.length - 1].ended : 0 };
}

// Shares against a number on a logarithmic axis: measured points with their intervals, and a law through them.
export function Curve({ x: title, points, law }) {
  const width = 560;
  const height = 240;
  const [left, right, top, bottom] = [48, 12, 10, 38];
  const most = Math.max(2, ...points.map((point) => point[0]));
  const x = (value) => left + ((width - left - right) * Math.log(value)) / Math.log(most);
  const y = (value) => height - bottom - (height - top - bottom) * value;
  const path = (line) => line.map((point, place) => `${place ? "L" : "M"}${x(point[0])},${y(point[1])}`).join("");
  const told = points.map((point) => `${point[0]}: ${share(point[1])}`).join(", ");
  return html`<figure>
    <svg viewBox=${`0 0 ${width} ${height}`} class="chart" role="img" aria-label=${`Share against ${title}. ${told}`}>
      ${[0, 0.25, 0.5, 0.75, 1].map((tick) => html`<g class="tick"><path d=${`M${left},${y(tick)}H${width - right}`} /><text x=${left - 6} y=${y(tick)} dy="0.32em" text-anchor="end">${100 * tick}%</text></g>`)}
      ${points.map((point) => html`<g class="tick"><text x=${x(point[0])} y=${height - bottom + 15} text-anchor="middle">${point[0]}</text></g>`)}
      <text x=${(left + width - right) / 2} y=${height - 5} text-anchor="middle">${title}</text>
      ${law.length > 1 && html`<path d=${path(law)} class="frontier" />`}
      ${points.map((point) => html`<path stroke=${COLOURS[0]} class="interval" d=${`M${x(point[0])},${y(point[2])}V${y(point[3])}`} /><${Shape} place=${0} x=${x(point[0])} y=${y(point[1])} size=${4} />`)}
    </svg>
    <figcaption class="note">Bars are 95% intervals.${law.length > 1 ? " The dashed line is the fitted law." : ""}</figcaption>
  </figure>`;
}

// Those that nothing beats: the cheapest first, each further one more accurate than all that are cheaper.
export function frontier(points, unit) {
  let best = -Infinity;
  return points
    .filter((point) => point.cost[unit])
    .sort((a, b) => a.cost[unit][0] - b.cost[unit][0] || b.accuracy[0] - a.accuracy[0])
    .filter((point) => point.accuracy[0] > best && ((best = point.accuracy[0]), true));
}

export function Scatter({ points, unit, places }) {
  const known = points.filter((point) => point.cost[unit]);
  if (!known.length) return html`<p class="note">No cost in ${UNIT_NAMES[unit]} is known of these.</p>`;
  const width = 720;
  const height = 340;
  const [left, right, top, bottom] = [52, 20, 14, 42];
  const ends = known.flatMap((point) => point.cost[unit].map((amount) => Math.max(amount, point.cost[unit][0] / 4))).filter((amount) => amount > 0);
  const [least, most] = ends.length ? [Math.min(...ends) / 1.15, Math.max(...ends) * 1.15] : [0.5, 2];
  const floor = Math.min(...known.map((point) => point.accuracy[1]));
  const roof = Math.max(...known.map((point) => point.accuracy[2]));
  const [low, high] = [Math.max(0, floor - 0.03), Math.min(1, roof + 0.03)];
  const x = (amount) => left + ((width - left - right) * Math.log(Math.max(amount, least) / least)) / Math.log(most / least);
  const y = (value) => height - bottom - ((height - top - bottom) * (value - low)) / (high - low || 1);
  const best = frontier(known, unit);
  const steps = best.map((point, place) => `${place ? "H" : "M"}${x(point.cost[unit][0])}${place ? "V" : ","}${y(point.accuracy[0])}`).join("") + `H${width - right}`;
  const step = high - low > 0.5 ? 0.2 : high - low > 0.2 ? 0.1 : 0.05;
  const marks = Array.from({ length: 30 }, (_, place) => place * step).filter((value) => value >= low && value <= high + 1e-9);
  const decades = [];
  for (let power = Math.floor(Math.log10(least)); power <= Math.ceil(Math.log10(most)); power += 1) {
    for (const factor of [1, 2, 5]) {
      const amount = factor * 10 ** power;
      if (amount >= least && amount <= most) decades.push(amount);
    }
  }
  return html`<figure>
    <svg viewBox=${`0 0 ${width} ${height}`} class="chart" role="img" aria-label=${`Accuracy against mean ${UNIT_NAMES[unit]} per problem; nothing is better and cheaper than ${best.map((point) => point.name).join(", ")}`}>
      ${marks.map((value) => html`<g class="tick"><path d=${`M${left},${y(value)}H${width - right}`} /><text x=${left - 6} y=${y(value)} dy="0.32em" text-anchor="end">${(100 * value).toFixed(0)}%</text></g>`)}
      ${decades.map((amount) => html`<g class="tick"><path d=${`M${x(amount)},${height - bottom}v4`} /><text x=${x(amount)} y=${height - bottom + 16} text-anchor="middle">${number(amount)}</text></g>`)}
      <text x=${(left + width - right) / 2} y=${height - 6} text-anchor="middle" class="title">mean ${UNIT_NAMES[unit]} per problem</text>
      <path d=${steps} class="frontier" />
      ${known.map((point) => {
        const place = places.get(point.source);
        const colour = COLOURS[place % COLOURS.length];
        const [amount, cheap, dear] = point.cost[unit];
        const [accuracy, worst, top] = point.accuracy;
        return html`<g>
          <path stroke=${colour} class="interval" d=${`M${x(amount)},${y(worst)}V${y(top)}M${x(Math.max(cheap, least))},${y(accuracy)}H${x(dear)}`} />
          <${Shape} place=${place} x=${x(amount)} y=${y(accuracy)} />
          <title>${`${point.name}: ${share(accuracy)}, ${cost(amount, unit)}`}</title>
        </g>`;
      })}
    </svg>
    <figcaption class="note">Bars are 95% intervals. The line is the frontier: nothing on the left of it is as accurate.</figcaption>
  </figure>`;
}
