export { Compartment, EditorState, Prec, StateEffect, StateField } from "@codemirror/state";
export {
  Decoration, EditorView, drawSelection, hoverTooltip, keymap, lineNumbers, placeholder, tooltips,
} from "@codemirror/view";
export {
  HighlightStyle, StreamLanguage, bracketMatching, syntaxHighlighting,
} from "@codemirror/language";
export {
  acceptCompletion, autocompletion, closeBrackets, closeBracketsKeymap, completionKeymap,
  completionStatus, startCompletion,
} from "@codemirror/autocomplete";
export { forceLinting, linter, lintKeymap, setDiagnostics } from "@codemirror/lint";
export { defaultKeymap, history, historyKeymap, insertNewline } from "@codemirror/commands";
export { SQLDialect, PostgreSQL, sql } from "@codemirror/lang-sql";
export { tags } from "@lezer/highlight";
