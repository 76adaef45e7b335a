// Numbers and names as people read them.

export const UNIT_NAMES = { tokens: "tokens", seconds: "seconds", flops: "FLOPs", eflops: "eFLOPs", usd: "USD" };

export function number(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "-";
  const size = Math.abs(value);
  if (size >= 1e15) return `${(value / 1e15).toPrecision(3)}P`;
  if (size >= 1e12) return `${(value / 1e12).toPrecision(3)}T`;
  if (size >= 1e9) return `${(value / 1e9).toPrecision(3)}G`;
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  if (size === 0) return "0";
  return String(Number(value.toPrecision(3)));
}

export function cost(amount, unit) {
  if (amount === null || amount === undefined) return "-";
  if (unit === "usd") return `$${Number(amount.toPrecision(3))}`;
  return unit === "seconds" ? `${number(amount)} s` : number(amount);
}

export const share = (value) => (value === null || value === undefined ? "-" : `${(100 * value).toFixed(1)}%`);

export const points = (value) => (value === null ? "-" : `${value >= 0 ? "+" : ""}${(100 * value).toFixed(1)}`);

export function oneLine(text, most) {
  const line = text.trim().replace(/\s+/g, " ");
  return line.length > most ? `${line.slice(0, most - 3)}...` : line;
}

export function verdict(credit) {
  if (credit === null || credit === undefined) return { word: "ungraded", mark: "", class: "none" };
  if (credit >= 1) return { word: "right", mark: "\u2713", class: "right" };
  if (credit <= 0) return { word: "wrong", mark: "\u2717", class: "wrong" };
  return { word: `${(100 * credit).toFixed(0)}% right`, mark: "\u25D0", class: "partly" };
}

export function link(path, query) {
  const search = new URLSearchParams(
    Object.entries(query || {}).filter(([, value]) => value !== "" && value !== null && value !== undefined),
  ).toString();
  return `#/${path}${search ? `?${search}` : ""}`;
}

export function strategyName(settings) {
  const strategy = settings?.strategy;
  if (!strategy) return "";
  return typeof strategy === "string" ? strategy : strategy.name || "";
}

export function described(strategy) {
  if (!strategy || typeof strategy === "string") return strategy || "";
  const parts = Object.entries(strategy).filter(([name]) => name !== "name");
  return `${strategy.name}(${parts.map(([name, value]) => `${name}=${JSON.stringify(value)}`).join(", ")})`;
}

// How samples were drawn, as it was sent; empty where that was not recorded.
export const sampled = (sampling) =>
  Object.entries(sampling || {}).map(([name, value]) => `${name} ${JSON.stringify(value)}`).join(", ");
