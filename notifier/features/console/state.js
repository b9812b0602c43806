// The state of the console, in one object. Change it by `update`; the page is drawn once after all changes.

export const state = {
  pages: {}, // by name: title, view, and loader
  token: null,
  me: null, // the user and the permissions
  signIn: null, // the state of the sign-in, while no user is signed in
  route: { name: "overview", query: {} },
  service: null, // the last overview
  updatedAt: 0,
  lost: null, // why updates fail, and since when
  steps: new Map(), // the data of the overview's plot, by step of five seconds
  page: { data: null, problem: null, loading: false },
  dialog: null,
  jobs: new Map(), // jobs that this tab started, by id
  retries: new Map(), // the last retry of each client
  notices: [],
  held: false, // pointer or focus is in a table, whose rows must not move
  pointed: false, // the pointer is in a table: the parts above it keep their height, too
  plotAt: null,
  paused: false,
  theme: "auto",
};

let draw = () => {};
let isDrawDue = false;

/** Set the function that draws the page. */
export function setRenderer(render) {
  draw = render;
}

/** Call a function after the page is drawn with the current changes. */
export const afterDraw = (action) => queueMicrotask(() => queueMicrotask(action));

/** Change the state. */
export function update(patch = {}) {
  Object.assign(state, patch);
  if (isDrawDue) return;
  isDrawDue = true;
  queueMicrotask(() => {
    isDrawDue = false;
    draw();
  });
}
