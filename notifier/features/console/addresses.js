// The console's addresses: the hash has the page and its query. To open an address changes nothing at the service.
import { state, update } from "./state.js";
import { withoutEmpty } from "./api.js";

const HOME = "overview";

/** The address of a page. */
export function pageAddress(page, query = {}) {
  const parameters = withoutEmpty(query);
  return `#/${page}${Object.keys(parameters).length ? `?${new URLSearchParams(parameters)}` : ""}`;
}

/** Change the query of this page, and remove empty values. */
export function changeQuery(query) {
  location.hash = pageAddress(state.route.name, { ...state.route.query, ...query });
}

/** Apply the current address. Return the name of the previous page. */
export function applyAddress() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const name = Object.hasOwn(state.pages, path) ? path : HOME;
  const before = state.route.name;
  const keepsData = before === name && !state.pages[name].fresh;
  update({
    route: { name, query: Object.fromEntries(new URLSearchParams(query)) },
    page: { data: keepsData ? state.page.data : null, problem: null, loading: true },
    dialog: null,
    plotAt: null,
  });
  return before;
}
