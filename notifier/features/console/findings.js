// Findings of the doctor and the canary, each with its remedy.
import { SafeText, html, number } from "./text.js";
import { RunbookLink } from "./parts.js";

const LEVELS = { ok: ["good", "ok"], warning: ["warn", "warning"], failed: ["bad", "failed"] };
const ORDER = ["failed", "warning", "ok"];

/** Worst first. */
export function Findings({ findings }) {
  const place = ({ level }) => ORDER.indexOf(level);
  const sorted = [...findings].sort((one, other) => place(one) - place(other));
  return html`<ul class="findings">${sorted.map((each) => html`<${Finding} finding=${each} />`)}</ul>`;
}

function Finding({ finding }) {
  const { area, subject, level, text, advice, count = 1, first = [] } = finding;
  const [tone, word] = LEVELS[level] ?? ["", level];
  return html`<li class=${tone}><p><span class="chip ${tone}">${word}</span>${" "}<span class="dim">${area}</span>${" "}
      <b><${SafeText} text=${subject} limit=${120} /></b>
      ${count > 1 && html`${" "}<span class="dim">and ${number(count - 1)} more</span>`}</p>
    <p><${SafeText} text=${text} limit=${1000} /></p>
    ${count > 1 && first.length > 0 && html`<p class="dim"><${SafeText} text=${first.join(", ")} /></p>`}
    ${advice && level !== "ok" && html`<p class="advice">→ <${Advice} text=${advice} /></p>`}</li>`;
}

/** The remedy, with a link to the runbook's section. */
function Advice({ text }) {
  const [, name] = /^notifier explain (\S+)$/.exec(text) ?? [];
  return name ? html`<${RunbookLink} name=${name} />` : html`<${SafeText} text=${text} limit=${1000} />`;
}
