// Bars on a time axis, as SVG: the colours follow the theme, and screen readers get the sums.
import { formatTime, html, number } from "./text.js";
import { state, update } from "./state.js";

const MAX_BAR_HEIGHT = 96; // of 100: the highest bar leaves some space
const MIN_BAR_HEIGHT = 1.5; // keeps one failure among thousands visible
const TONES = ["good", "warn", "bad"];
const WORDS = ["delivered", "failed", "given up"];

/** `bars`: [time, delivered, failed, given up] per slot, or without the last; a slot lasts `width` of `unit`. */
export function Plot({ bars, width, unit, label }) {
  const sums = bars.map(([, ...counts]) => counts).reduce((all, counts) => all.map((had, nth) => had + counts[nth]));
  const most = Math.max(1, ...bars.map(([, ...counts]) => counts.reduce((all, count) => all + count, 0)));
  const shown = state.plotAt === null ? null : bars[state.plotAt];
  const [moment, ...counts] = shown ?? [null, ...sums];
  const point = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    const slot = Math.floor(((event.clientX - box.left) / box.width) * bars.length);
    update({ plotAt: Math.max(0, Math.min(bars.length - 1, slot)) });
  };
  const words = `${label}: ${sums.map((sum, nth) => `${number(sum)} ${WORDS[nth]}`).join(", ")}.`;
  return html`<figure class="plot">
    <svg viewBox="0 0 ${bars.length} 100" preserveAspectRatio="none" role="img" aria-label=${words}
        onPointerMove=${point} onPointerLeave=${() => update({ plotAt: null })}>
      ${[25, 50, 75].map((y) => html`<line class="grid" x1="0" x2=${bars.length} y1=${y} y2=${y} />`)}
      ${bars.map(([, ...counts], nth) => html`<${Bar} key=${nth} nth=${nth} counts=${counts} most=${most} />`)}
      ${shown && html`<rect class="cursor" x=${state.plotAt} width="1" y="0" height="100" />`}
    </svg>
    <figcaption><span>${number(Math.round((most / width) * 10) / 10)}/${unit}</span>
      <span>${moment === null ? label : formatTime(moment)}</span>
      ${counts.map((count, nth) => html`<span class="key ${TONES[nth]}">${number(count)} ${WORDS[nth]}</span>`)}</figcaption>
  </figure>`;
}

function Bar({ nth, counts, most }) {
  let top = 100;
  return counts.map((count, kind) => {
    if (!count) return null;
    const height = Math.max(kind ? MIN_BAR_HEIGHT : 0, (count * MAX_BAR_HEIGHT) / most);
    top = Math.max(0, top - height);
    return html`<rect class=${TONES[kind]} x=${nth + 0.08} width="0.84" y=${top} height=${height} />`;
  });
}
