// What the console knows, in one object. Whoever changes it calls `update`; the page is drawn once after all changes.

export const state = {
  pages: {}, // by name: title, view, and what it loads
  token: null,
  me: null, // whose token it is, and what it may do
  signIn: null, // how the sign-in stands, while nobody is signed in
  route: { name: "overview", query: {} },
  service: null, // the overview as it came last
  heardAt: 0,
  lost: null, // why there is no news, and since when
  steps: new Map(), // what the plot of the overview shows, by step of five seconds
  page: { data: null, problem: null, loading: false },
  dialog: null,
  jobs: new Map(), // what this tab began, by id
  retries: new Map(), // the last retry of each client
  notices: [],
  held: false, // pointer or focus is in a table: its rows keep their places
  pointed: false, // the pointer is: what is above the table keeps its height too
  plotAt: null,
  paused: false,
  theme: "auto",
};

let draw = () => {};
let due = false;

/** Say what draws the page. */
export function drawWith(render) {
  draw = render;
}

/** Do something once the page is drawn after the changes so far. */
export const onceDrawn = (action) => queueMicrotask(() => queueMicrotask(action));

/** Change the state. */
export function update(patch = {}) {
  Object.assign(state, patch);
  if (due) return;
  due = true;
  queueMicrotask(() => {
    due = false;
    draw();
  });
}
