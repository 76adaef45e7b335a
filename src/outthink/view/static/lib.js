// The libraries, under the names by which the modules of the page use them.
import { h, render, Fragment } from "./vendor/preact.js";
import { useState, useEffect, useMemo, useRef, useCallback, useLayoutEffect } from "./vendor/hooks.js";
import htm from "./vendor/htm.js";

export const html = htm.bind(h);
export const d3 = globalThis.d3;
export const katex = globalThis.katex;
export const purify = globalThis.DOMPurify;
export const hljs = globalThis.hljs;
export { h, render, Fragment, useState, useEffect, useMemo, useRef, useCallback, useLayoutEffect };
