use std::path::Path;

use super::*;

fn forms() -> (Tokenizer, Forms) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tiny-llava/model");
    let tokenizer = Tokenizer::open_in(&path).unwrap();
    let forms = Forms::new(&tokenizer, &[2]).unwrap();
    (tokenizer, forms)
}

/// Whether `text`, spelled in single bytes, follows the form to its end.
fn takes(tokenizer: &Tokenizer, guide: &Guide, text: &str) -> bool {
    let mut guide = guide.clone();
    let id_of =
        |byte: u8| (0..tokenizer.size() as u32).find(|id| tokenizer.shown(*id) == Some(Shown::Bytes(vec![byte])));
    for (at, byte) in text.bytes().enumerate() {
        let id = id_of(byte).unwrap();
        if !guide.allowed().unwrap().contains(id) {
            return false;
        }
        if guide.take(id).unwrap() {
            return at + 1 == text.len();
        }
    }
    guide.allowed().unwrap().contains(2)
}

#[test]
fn a_schema_takes_what_it_describes_and_nothing_else() {
    let (tokenizer, forms) = forms();
    let schema = json!({"type": "object", "properties": {"colour": {"enum": ["red", "grün"]}, "n": {"type": "integer"}},
        "required": ["colour", "n"], "additionalProperties": false});
    let guide = forms.json(&schema).unwrap();
    assert!(takes(&tokenizer, &guide, r#"{"colour":"grün","n":-12}"#));
    assert!(takes(&tokenizer, &guide, "{ \"colour\": \"red\",\n \"n\": 0 }"));
    for wrong in [r#"{"colour":"blue","n":1}"#, r#"{"n":1,"colour":"red"}"#, r#"{"colour":"red"}"#, "[]", "red"] {
        assert!(!takes(&tokenizer, &guide, wrong), "{wrong}");
    }
    let endless = format!("{{{}\"colour\":\"red\",\"n\":1}}", " ".repeat(20));
    assert!(!takes(&tokenizer, &guide, &endless));
}

#[test]
fn an_object_is_any_object_and_a_clone_goes_its_own_way() {
    let (tokenizer, forms) = forms();
    let guide = forms.json_object().unwrap();
    assert!(takes(&tokenizer, &guide, r#"{"a": [1, {"b": null}]}"#));
    assert!(takes(&tokenizer, &guide, "{}"));
    assert!(!takes(&tokenizer, &guide, "[]"));
    assert!(takes(&tokenizer, &forms.json(&json!(true)).unwrap(), "[1]"));
}

#[test]
fn calls_name_a_function_and_follow_its_schema() {
    let (tokenizer, forms) = forms();
    let function = |name: &str| Callable {
        name: name.to_owned(),
        parameters: json!({"type": "object", "properties": {"at": {"$ref": "#/$defs/place"}}, "required": ["at"],
            "additionalProperties": false, "$defs": {"place": {"type": "string", "maxLength": 5}}}),
    };
    let functions = [function("look"), function("go-to.x")];
    let look = "<tool_call>\n{\"name\": \"look\", \"arguments\": {\"at\": \"A\"}}\n</tool_call>";
    let go = "<tool_call>\n{\"name\": \"go-to.x\", \"arguments\": {\"at\": \"B\"}}\n</tool_call>";
    let one = forms.calls(&functions, false).unwrap();
    let several = forms.calls(&functions, true).unwrap();
    let both = format!("{look}\n{go}");
    assert!(takes(&tokenizer, &one, look) && takes(&tokenizer, &one, go));
    assert!(!takes(&tokenizer, &one, &both));
    assert!(takes(&tokenizer, &several, look) && takes(&tokenizer, &several, &both));
    for wrong in [look.replace("look", "see"), look.replace("\"A\"", "1"), "I look".to_owned()] {
        assert!(!takes(&tokenizer, &several, &wrong), "{wrong}");
    }
}

#[test]
fn what_is_no_schema_is_refused_with_a_sentence() {
    let (_, forms) = forms();
    for wrong in [
        json!({"type": "nothing"}),
        json!({"type": "object", "properties": 5}),
        json!({"$ref": "#/$defs/missing"}),
        json!({"type": "string", "pattern": "("}),
        json!({"type": "integer", "minimum": 5, "maximum": 1}),
        json!(false),
    ] {
        match forms.json(&wrong) {
            Err(GuideError::Schema(why)) => {
                assert!(!why.is_empty() && why.len() < 1000 && !why.contains('\n'), "{why}");
            }
            other => panic!("{wrong}: {other:?}"),
        }
    }
    let long = json!({"enum": ["x".repeat(LONGEST_SCHEMA)]});
    assert!(matches!(forms.json(&long), Err(GuideError::TooLong { .. })));
}

#[test]
fn hostile_schemas_end_with_an_answer() {
    let (_, forms) = forms();
    // The longest chain of references that fits.
    let chain: serde_json::Map<String, Value> =
        (0..1800).map(|n| (format!("d{n}"), json!({"$ref": format!("#/$defs/d{}", n + 1)}))).collect();
    let mut chain = json!({"$ref": "#/$defs/d0", "$defs": chain});
    chain["$defs"]["d1800"] = json!({"type": "null"});
    let _ = forms.json(&chain);
    let mut all_of = json!({"type": "object"});
    for _ in 0..60 {
        all_of = json!({"allOf": [all_of.clone(), {"anyOf": [all_of, {"type": "null"}]}]});
        if all_of.to_string().len() > LONGEST_SCHEMA / 3 {
            break;
        }
    }
    let _ = forms.json(&all_of);
    for pattern in ["(a{1000}){1000}", "(a?){500}a{500}", "(.*.*.*)*x"] {
        let _ = forms.json(&json!({"type": "string", "pattern": pattern}));
    }
    let _ = forms.json(&json!({"$ref": "#"}));
    let _ = forms.json(&json!({"type": "string", "maxLength": 4_000_000_000_u64}));
    let _ = forms.json(&json!({"type": "array", "minItems": 4_000_000_000_u64}));
}
