// Bars on a time axis, as SVG: the colours follow the theme, and screen readers get the sums.
import { formatTime, html, number, rate } from "./text.js";
import { state, update } from "./state.js";

const MAX_BAR_HEIGHT = 96; // of 100: the highest bar leaves some space
const MIN_BAR_HEIGHT = 1.5; // keeps one failure among thousands visible
const TONES = ["good", "warn", "bad"];
const WORDS = ["delivered", "failed", "given up"];

const UNITS = { s: "a second", min: "a minute" };

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
  const first = bars[0][0], last = bars.at(-1)[0];
  return html`<figure class="plot">
    <p class="axis-unit dim">results ${UNITS[unit]}</p>
    <div class="axes"><div class="axis-y dim" aria-hidden="true"><span>${rate(most / width)}</span><span>0</span></div>
    <svg viewBox="0 0 ${bars.length} 100" preserveAspectRatio="none" role="img" aria-label=${words}
        onPointerMove=${point} onPointerLeave=${() => update({ plotAt: null })}>
      ${[100 - MAX_BAR_HEIGHT, 100 - MAX_BAR_HEIGHT / 2, 100].map((y) => html`<line class="grid" x1="0" x2=${bars.length} y1=${y} y2=${y} />`)}
      ${bars.map(([, ...counts], nth) => html`<${Bar} key=${nth} nth=${nth} counts=${counts} most=${most} />`)}
      ${shown && html`<rect class="cursor" x=${state.plotAt} width="1" y="0" height="100" />`}
    </svg></div>
    <p class="axis-x dim" aria-hidden="true">${[first, (first + last) / 2, last].map((each) => html`<span>${formatMinute(each)}</span>`)}</p>
    <figcaption><span>${moment === null ? label : formatTime(moment)}</span>
      ${counts.map((count, nth) => html`<span class="key ${TONES[nth]}">${number(count)} ${WORDS[nth]}</span>`)}</figcaption>
  </figure>`;
}

const formatMinute = (moment) => formatTime(moment).slice(-8, -3); // "14:05", also of yesterday

function Bar({ nth, counts, most }) {
  let top = 100;
  return counts.map((count, kind) => {
    if (!count) return null;
    const height = Math.max(kind ? MIN_BAR_HEIGHT : 0, (count * MAX_BAR_HEIGHT) / most);
    top = Math.max(0, top - height);
    return html`<rect class=${TONES[kind]} x=${nth + 0.08} width="0.84" y=${top} height=${height} />`;
  });
}
