// Returns what is wrong on the page as a reader of a picture would see it: by kind, the first elements.
() => {
  const isShown = (each) => each.checkVisibility({ checkVisibilityCSS: true }) && !each.closest(".hidden, .skip, thead");
  const all = [...document.querySelectorAll("#app *")].filter(isShown);
  const matching = (selector, isWrong) => all.filter((each) => each.matches(selector) && isWrong(each));
  const isCutting = (each) => getComputedStyle(each).overflowX === "hidden";
  const isCut = (each) => each && (isCutting(each) || isCut(each.parentElement));
  const rectOf = (each) => each.getBoundingClientRect();

  /** The elements of texts that are cut by the box, without a title that has the whole text. */
  function cutIn(box) {
    const edge = rectOf(box), texts = document.createTreeWalker(box, NodeFilter.SHOW_TEXT), found = [];
    while (texts.nextNode()) {
      const range = document.createRange();
      range.selectNodeContents(texts.currentNode);
      const { right, bottom } = rectOf(range), { parentElement, textContent } = texts.currentNode;
      const isBeyond = right > edge.right + 1 || bottom > edge.bottom + 4;
      if (isBeyond && textContent.trim() && !parentElement.closest("[title]")) found.push(parentElement);
    }
    return found;
  }

  const count = (plot, selector) => plot.querySelectorAll(selector).length;
  const hasUnits = (plot) => / a (second|minute)$/.test(plot.querySelector(".axis-unit")?.textContent)
    && count(plot, ".axis-x span") === 3 && count(plot, ".axis-y span") === 2;
  const mayBeTall = "details, td[data-head='Value'], td[data-head='Result'], td[data-head='Find in the log']";
  const faults = {
    "beyond the screen": all.filter((each) => rectOf(each).right > document.documentElement.clientWidth + 1 && !isCut(each.parentElement)),
    "a table that scrolls": matching(".scroll", (each) => each.scrollWidth > each.clientWidth + 1),
    "cut without a title": all.filter(isCutting).flatMap(cutIn),
    "shortened without a title": matching("bdi", (each) => each.textContent.includes("…") && !each.closest("[title]")),
    "cut without an ellipsis": matching(".quote", (each) => /[{]/.test(each.title) && !each.title.endsWith("}") && !each.textContent.includes("…")),
    "a field that cuts its value without a title": matching("input, select", (each) => each.scrollWidth > each.clientWidth + 1 && !each.title),
    "a dialog that scrolls sideways": matching("dialog", (each) => each.scrollWidth > each.clientWidth + 1),
    "a colour without words": matching(".chip, .pulse, .band, .key", (each) => !/[a-z]{2}/.test(each.innerText)),
    "a problem without a state": matching(".troubles > li, .findings > li", (each) => !each.querySelector(".chip")),
    "a plot without units": matching(".plot", (each) => !hasUnits(each)),
    "a tall row": innerWidth < 700 ? [] : matching("tr", (each) => rectOf(each).height > 100 && !each.querySelector(mayBeTall)),
  };
  const describe = (each) => `${each.tagName}.${each.getAttribute("class")} ${each.textContent.trim().slice(0, 60)}`;
  return Object.fromEntries(Object.entries(faults).filter(([, found]) => found.length)
    .map(([kind, found]) => [kind, found.slice(0, 5).map(describe)]));
}
