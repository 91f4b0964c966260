// A link to a login carries its token behind the #, which browsers send to no server. This moves it into the form.
const token = location.hash.slice(1);
const field = document.querySelector("input[name=token]");
if (field !== null && /^wxs_\w+$/.test(token)) {
  field.value = token;
  history.replaceState(null, "", location.pathname);
  field.form.querySelector("button").focus();
}
