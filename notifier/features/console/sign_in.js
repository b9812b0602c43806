// The sign-in by the organisation's OpenID Provider is not there yet.
export const begin = async () => {};
export const renew = async () => {};
export const finish = async () => null;
