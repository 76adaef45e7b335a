// A mailed page: its data are in a script block as gzipped JSON, and what a server would choose is chosen here.

const UNITS = ["tokens", "seconds", "flops", "eflops", "usd"];

const TURNING = /[\u202A-\u202E\u2066-\u2069]/g; // characters that reverse what stands around them

// JSON in which such a character is shown as one that cannot be shown; one for one, since offsets count characters.
export function upright(text) {
  if (!/\\u20[26]|[\u202A-\u202E\u2066-\u2069]/i.test(text)) return JSON.parse(text);
  return JSON.parse(text, (_, value) => (typeof value === "string" ? value.replace(TURNING, "\uFFFD") : value));
}

async function unpacked(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return upright(await new Response(stream).text());
}

function wanted(row, query, other) {
  const { verdict, stopped, strategy, text, unit } = query;
  if (verdict === "right" && !(row.credit >= 1)) return false;
  if (verdict === "wrong" && !(row.credit !== null && row.credit < 1)) return false;
  if (verdict === "ungraded" && row.credit !== null) return false;
  if (verdict === "none" && row.answer !== null) return false;
  if (stopped && row.stopped !== stopped) return false;
  if (strategy && row.strategy !== strategy) return false;
  if (text && !row.problem.includes(text)) return false;
  const cost = row.cost[unit || "tokens"];
  if (query.least && !(cost >= Number(query.least))) return false;
  if (query.most && !(cost <= Number(query.most))) return false;
  if (!other) return true;
  const there = other.get(row.problem);
  if (!there) return false;
  return row.credit !== null && there.credit !== null ? row.credit !== there.credit : row.key !== there.key;
}

export function chosen(rows, query, others) {
  const other = others ? new Map(others.map((row) => [row.problem, row])) : null;
  const kept = rows.filter((row) => wanted(row, query, other));
  const value = (row) => (UNITS.includes(query.order) ? row.cost[query.order] : row[query.order]) ?? Infinity;
  if (["credit", "nodes", ...UNITS].includes(query.order)) {
    kept.sort((a, b) => (query.down === "1" ? value(b) - value(a) : value(a) - value(b)) || a.line - b.line);
  } else if (query.down === "1") kept.reverse();
  return other ? kept.map((row) => ({ ...row, other: other.get(row.problem) })) : kept;
}

export function embedded() {
  const block = document.getElementById("data");
  if (!block) return null;
  const whole = unpacked(JSON.parse(block.textContent));
  return {
    mailed: true,
    sources: async () => ({ version: 0, sources: (await whole).sources, made: (await whole).made }),
    rows: async (query) => {
      const { rows } = await whole;
      const kept = chosen(rows[query.source], query, query.differs ? rows[query.differs] : null);
      if (query.around !== undefined) {
        const place = kept.findIndex((row) => row.line === query.around);
        const [previous, next] = place < 0 ? [] : [kept[place - 1]?.line, kept[place + 1]?.line];
        return { total: kept.length, place: place < 0 ? null : place, previous: previous ?? null, next: next ?? null };
      }
      const offset = Number(query.offset || 0);
      const all = rows[query.source].length;
      return { total: kept.length, known: all, lines: all, rows: kept.slice(offset, offset + Number(query.limit || 50)) };
    },
    overview: async (source) => (await whole).sources[source].overview,
    problem: async (source, line) => {
      const entry = (await whole).entries[source][line];
      if (!entry) throw new Error("This problem is not in the file, which would be too large with all of them.");
      return entry;
    },
    compare: async (sources) => {
      const { compared } = await whole;
      const points = compared.points.filter((point) => sources.includes(point.source));
      const pairs = compared.pairs.filter((pair) => sources.includes(pair.a) && sources.includes(pair.b));
      return { ...compared, points, pairs };
    },
    follow: async () => {},
  };
}
