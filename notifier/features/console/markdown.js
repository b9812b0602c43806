// Render the runbook's Markdown: paragraphs, lists, code, bold. HTML in it is shown as text, and links as their text.
import { html } from "./text.js";

const SPAN = /(`[^`]+`|\*\*[^*]+\*\*|\[[^\]]+\]\([^)]+\))/;

function span(part) {
  if (part.startsWith("`")) return html`<code>${part.slice(1, -1)}</code>`;
  if (part.startsWith("**")) return html`<strong>${part.slice(2, -2)}</strong>`;
  if (part.startsWith("[") && part.includes("](")) return part.slice(1, part.indexOf("]"));
  return part;
}
const spans = (text) => text.split(SPAN).map(span);
const items = (lines) => lines.map((item) => html`<li>${spans(item)}</li>`);

const BLOCKS = {
  p: (lines) => html`<p>${spans(lines.join(" "))}</p>`,
  pre: (lines) => html`<pre tabindex="0"><code>${lines.join("\n")}</code></pre>`,
  ol: (lines) => html`<ol>${items(lines)}</ol>`,
  ul: (lines) => html`<ul>${items(lines)}</ul>`,
  gap: () => null,
};

/** Return the blocks of a text: each has a kind of BLOCKS and its lines. */
function blocksOf(text) {
  const blocks = [];
  let fence = null;
  const add = (kind, line) => {
    const last = blocks.at(-1);
    if (last?.kind === kind) last.lines.push(line);
    else blocks.push({ kind, lines: [line] });
  };
  for (const line of String(text).split("\n")) {
    const item = /^\s*(\d+\.|-) (.*)/.exec(line);
    if (line.startsWith("```")) {
      if (fence) fence = null;
      else blocks.push((fence = { kind: "pre", lines: [] }));
    } else if (fence) fence.lines.push(line);
    else if (item) add(item[1] === "-" ? "ul" : "ol", item[2]);
    else if (continuesItem(blocks.at(-1), line)) extendItem(blocks.at(-1), line);
    else if (line.trim()) add("p", line);
    else if (!["ol", "ul"].includes(blocks.at(-1)?.kind)) blocks.push({ kind: "gap", lines: [] });
  }
  return blocks;
}

/** Return whether the line is an indented line after an item of a list. */
const continuesItem = (block, line) => ["ol", "ul"].includes(block?.kind) && /^\s+\S/.test(line);

function extendItem(block, line) {
  block.lines.push(`${block.lines.pop()} ${line.trim()}`);
}

export const Markdown = ({ text }) =>
  html`<div class="markdown">${blocksOf(text).map(({ kind, lines }) => BLOCKS[kind](lines))}</div>`;
