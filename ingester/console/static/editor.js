// The query editor: CodeMirror, loaded when a screen first needs it.
//
// Until it is there, and if it cannot be loaded, a plain field takes the same text. Enter runs,
// Shift+Enter makes a new line; a fault is underlined at its column.
import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { get } from "./api.js";
import { screen } from "./ui.js";

const ECHOES_MAX = 100;
const FROM_OUTSIDE = "outside";

let loading = null;

/** The vendor module, once. */
export function loadEditor() {
  loading ??= import("./vendor/codemirror.js");
  return loading;
}

/**
 * `value`, `onChange(text)`, `onRun(text)`; `language`: "sql", "lql" or "text"; `fault`:
 * `{column, message}` (from 1) or null; `complete(text, position)` resolves to
 * `{from, to?, options: [{label, detail?, type?, apply?}]}` or null; `multiline` grows with its lines.
 * Columns and positions are characters, as the server counts them.
 */
export function Editor({
  value, onChange, onRun, language = "text", fault = null, complete, placeholder = "",
  label = "Query", multiline = false, search = false, schema,
}) {
  const place = useRef(null);
  const view = useRef(null);
  const now = useRef({});
  // What was told by `onChange` and has not come back as `value` yet.
  const told = useRef([]);
  const [isThere, setThere] = useState(false);
  now.current = {
    onRun,
    complete,
    onChange: (text) => {
      told.current = [...told.current.slice(-ECHOES_MAX), text];
      onChange(text);
    },
  };

  useEffect(() => {
    let isGone = false;
    loadEditor().then(
      (codemirror) => {
        if (isGone) return;
        const plain = place.current.querySelector("textarea");
        view.current = make(codemirror, place.current, {
          value: plain?.value ?? value, now, language, placeholder, label, multiline, schema,
        });
        if (plain === document.activeElement) {
          // Who types already goes on where they are; what they type must not become keys of the page.
          const { selectionStart: anchor, selectionEnd: head } = plain;
          view.current.dispatch({ selection: { anchor, head } });
          view.current.focus();
        }
        setThere(true);
      },
      () => {}, // the plain field stays
    );
    return () => {
      isGone = true;
      view.current?.destroy();
      view.current = null;
    };
  }, [language]);

  useEffect(() => {
    const editor = view.current;
    // An echo may be late: who types on must not get it back.
    const at = told.current.indexOf(value);
    if (at >= 0) told.current.splice(0, at + 1);
    else if (editor && editor.state.doc.toString() !== value) {
      editor.dispatch({
        changes: { from: 0, to: editor.state.doc.length, insert: value },
        userEvent: FROM_OUTSIDE,
      });
    }
  }, [value, isThere]);

  useEffect(() => {
    if (isThere) loadEditor().then((codemirror) => underline(codemirror, view.current, fault));
  }, [fault, isThere]);

  return html`<div class="editor" ref=${place} data-search=${search ? "" : null}>
    ${!isThere &&
    html`<textarea class="mono" rows=${multiline ? 5 : 1} aria-label=${label} value=${value}
      placeholder=${placeholder} onInput=${(event) => onChange(event.currentTarget.value)}></textarea>`}
  </div>`;
}

function make(cm, parent, { value, now, language, placeholder, label, multiline, schema }) {
  const run = (view) => {
    now.current.onRun?.(view.state.doc.toString());
    return true;
  };
  const extensions = [
    cm.history(),
    cm.drawSelection(),
    cm.bracketMatching(),
    cm.closeBrackets(),
    cm.syntaxHighlighting(colours(cm)),
    cm.EditorView.lineWrapping,
    cm.EditorView.cspNonce.of(screen.nonce),
    cm.EditorView.contentAttributes.of({ "aria-label": label, spellcheck: "false" }),
    cm.placeholder(placeholder),
    look(cm, multiline),
    cm.tooltips({ parent: document.body }),
    cm.EditorView.updateListener.of((update) => {
      const isOurs = update.transactions.some((one) => one.isUserEvent(FROM_OUTSIDE));
      if (update.docChanged && !isOurs) now.current.onChange(update.state.doc.toString());
    }),
    cm.Prec.high(
      cm.keymap.of([
        { key: "Mod-Enter", run },
        ...(multiline ? [] : [{ key: "Enter", run: (view) => cm.acceptCompletion(view) || run(view) }]),
        { key: "Shift-Enter", run: cm.insertNewline },
      ]),
    ),
    // Tab leaves the editor, as it does every field.
    cm.keymap.of([...cm.closeBracketsKeymap, ...cm.completionKeymap, ...cm.historyKeymap,
      ...cm.defaultKeymap]),
    cm.autocompletion({
      override: language === "sql" ? undefined : [(context) => suggestions(context, now)],
      icons: false,
      // Enter runs a query; what nobody has chosen is not put into it.
      selectOnOpen: language === "sql",
    }),
  ];
  if (language === "sql") {
    extensions.push(cm.sql({ dialect: cm.PostgreSQL, schema, upperCaseKeywords: true }));
  }
  if (language === "lql") extensions.push(cm.StreamLanguage.define(LQL));
  return new cm.EditorView({ parent, state: cm.EditorState.create({ doc: value, extensions }) });
}

// The server counts characters, scripts count UTF-16 units.
const unitsOf = (text, characters) => [...text].slice(0, characters).join("").length;
const charactersOf = (text, units) => [...text.slice(0, units)].length;

async function suggestions(context, now) {
  const { complete } = now.current;
  if (!complete) return null;
  const text = context.state.doc.toString();
  const found = await complete(text, charactersOf(text, context.pos));
  if (!found?.options.length) return null;
  const to = found.to === undefined ? undefined : unitsOf(text, found.to);
  return { filter: false, ...found, from: unitsOf(text, found.from), to };
}

function completionOf(table) {
  let under = null;
  return async (text, position) => {
    under?.abort();
    under = new AbortController();
    try {
      const asked = { q: text, cursor: position };
      const { suggestions: found } = await get(`/${table}/complete`, asked, { signal: under.signal });
      if (!found.length) return null;
      const [{ start, end }] = found;
      return { from: start, to: end, options: found.map((one) => ({ label: one.text, detail: one.kind })) };
    } catch {
      return null; // typing goes on without
    }
  };
}

/** By table, for `complete`: what could be typed next in LQL; what is superseded is cancelled. */
export const lqlCompletion = { logs: completionOf("logs"), events: completionOf("events") };

function underline(cm, view, fault) {
  if (!view) return;
  const found = [];
  if (fault) {
    const length = view.state.doc.length;
    const place = unitsOf(view.state.doc.toString(), Math.max((fault.column ?? 1) - 1, 0));
    const from = Math.min(place, Math.max(length - 1, 0));
    const rest = view.state.doc.sliceString(from);
    const word = /^(?:[\w.@-]+|\S)/.exec(rest)?.[0].length ?? 0;
    const to = Math.min(length, from + Math.max(word, 1));
    found.push({ from, to, severity: "error", message: fault.message });
  }
  view.dispatch(cm.setDiagnostics(view.state, found));
}

function look(cm, multiline) {
  return cm.EditorView.theme({
    "&": {
      backgroundColor: "var(--surface)", color: "var(--text)", fontSize: "13px",
      border: "1px solid var(--line-strong)", borderRadius: "6px",
    },
    "&.cm-focused": { outline: "2px solid var(--accent)", outlineOffset: "-1px" },
    ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "1.55" },
    ".cm-content": { padding: "5px 4px", minHeight: multiline ? "110px" : "auto", caretColor: "var(--text)" },
    ".cm-cursor": { borderLeftColor: "var(--text)" },
    ".cm-placeholder": { color: "var(--muted)" },
    "&.cm-focused .cm-selectionBackground, .cm-selectionBackground": {
      backgroundColor: "color-mix(in srgb, var(--accent) 28%, transparent) !important",
    },
    ".cm-tooltip": {
      backgroundColor: "var(--surface)", color: "var(--text)", border: "1px solid var(--line)",
      borderRadius: "8px", boxShadow: "var(--shadow-high)", overflow: "hidden", zIndex: 40,
    },
    ".cm-tooltip-autocomplete ul li": { padding: "3px 8px !important" },
    ".cm-tooltip-autocomplete ul li[aria-selected]": {
      backgroundColor: "var(--accent-soft) !important", color: "var(--accent) !important",
    },
    ".cm-completionDetail": { color: "var(--muted)", fontStyle: "normal" },
    ".cm-lintRange-error": {
      backgroundImage: "none", textDecoration: "underline wavy var(--bad) 1.5px",
      textUnderlineOffset: "3px",
    },
    ".cm-diagnostic-error": { borderLeft: "3px solid var(--bad)", padding: "6px 10px" },
    ".cm-matchingBracket": { backgroundColor: "var(--accent-soft) !important", outline: "none" },
  });
}

function colours(cm) {
  const { tags } = cm;
  return cm.HighlightStyle.define([
    { tag: [tags.keyword, tags.operatorKeyword], color: "var(--accent)" },
    { tag: [tags.string, tags.special(tags.string)], color: "var(--good)" },
    { tag: [tags.number, tags.bool, tags.null], color: "var(--warn)" },
    { tag: [tags.propertyName, tags.variableName, tags.typeName], color: "var(--text)" },
    { tag: [tags.operator, tags.punctuation], color: "var(--muted)" },
    { tag: tags.comment, color: "var(--muted)", fontStyle: "italic" },
    { tag: tags.regexp, color: "var(--level-critical)" },
  ]);
}

const LQL_KEYWORD =
  /^-?(?:t|timestamp|m|metadata|event_message|level|s|select|c|chart)(?=[.:])/;

// LQL as far as colours go; what is wrong is the server's to say.
const LQL = {
  name: "lql",
  token(stream) {
    if (stream.eatSpace()) return null;
    if (stream.match(/^"(?:[^"\\]|\\.)*"?/)) return "string";
    if (stream.match(LQL_KEYWORD)) return "keyword";
    if (stream.match(/^-?[A-Za-z_][\w.-]*(?=:)/)) return "propertyName";
    if (stream.match(/^:(?:@>|@>~|>=|<=|>|<|~|=)?/)) return "operator";
    if (stream.match(/^-?\d+(?:\.\d+)?\b/)) return "number";
    if (stream.match(/^(?:true|false|null|NULL)\b/)) return "bool";
    if (stream.match(/^(?:OR|or)\b/)) return "keyword";
    stream.match(/^[^\s":]+/) || stream.next();
    return null;
  },
};
