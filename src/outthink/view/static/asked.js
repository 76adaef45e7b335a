// What is asked of the records again whenever they change, one request at a time.
import { useLayoutEffect, useRef, useState } from "./lib.js";

// [answer, error] of `ask()`. An answer to another `key` is dropped, one to an older `version` is shown until the next.
export function useAsked(ask, key, version) {
  const [told, tell] = useState({ key: null, answer: null, error: null });
  const state = useRef({});
  state.current.ask = ask;
  state.current.key = key;
  state.current.wanted = `${key}\u0000${version}`;
  // at once, and not when the page has been painted: whoever clicks waits for it
  useLayoutEffect(() => {
    if (state.current.busy === key) return;
    const go = () => {
      const { wanted } = state.current;
      state.current.busy = key;
      const done = (answer, error) => {
        if (state.current.key !== key) return;
        tell((before) => (error && before.key === key && before.answer ? { ...before, error } : { key, answer, error }));
        state.current.busy = null;
        if (state.current.wanted !== wanted) go();
      };
      state.current.ask().then((answer) => done(answer, null), (failure) => done(null, failure.message));
    };
    go();
  }, [key, version]);
  return told.key === key ? [told.answer, told.error] : [null, null];
}
