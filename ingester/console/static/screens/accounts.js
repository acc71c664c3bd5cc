import { Empty, Head, html, mount } from "../ui.js";

mount(() => html`<${Head} /><${Empty} title="Not here yet">This screen is being built.<//>`);
