// The address: the hash has the page and its query. Opening an address changes nothing.
import { state, update } from "./state.js";
import { narrowed } from "./api.js";

const HOME = "overview";

/** The address of a page. */
export function hash(page, query = {}) {
  const given = narrowed(query);
  return `#/${page}${Object.keys(given).length ? `?${new URLSearchParams(given)}` : ""}`;
}

/** Change the query of this page, and remove empty values. */
export function ask(query) {
  location.hash = hash(state.route.name, { ...state.route.query, ...query });
}

/** Apply the current address. Return the name of the previous page. */
export function arrive() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const name = Object.hasOwn(state.pages, path) ? path : HOME;
  const before = state.route.name;
  const keeps = before === name && !state.pages[name].fresh;
  update({
    route: { name, query: Object.fromEntries(new URLSearchParams(query)) },
    page: { data: keeps ? state.page.data : null, problem: null, loading: true },
    dialog: null,
    plotAt: null,
  });
  return before;
}
