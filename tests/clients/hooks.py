"""Lets most made-up requests get past the name of the model, which schemathesis cannot guess."""
import schemathesis


@schemathesis.hook
def before_call(context, case, kwargs):
    body = case.body
    # Some keep a wrong name.
    if isinstance(body, dict) and isinstance(body.get("model"), str) and len(body["model"]) != 1:
        del body["model"]
