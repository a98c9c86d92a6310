//! The parts that need no server; questions and answers are tested over HTTP.

use super::*;

fn hub(endpoint: &str) -> Result<Hub, HubError> {
    Hub::new(&Settings { endpoint: endpoint.to_owned(), token: None, patience: Patience::LOOK })
}

fn repository(uri: &str) -> Repository {
    match uri.parse().unwrap() {
        vlm_contract::uri::ModelUri::Hub(repository) => repository,
        other @ vlm_contract::uri::ModelUri::Claim(_) => panic!("{other:?}"),
    }
}

#[test]
fn addresses_are_below_the_endpoint_whatever_the_names_are() {
    let repository = repository("hf://org/name");
    let place = Place { repository: &repository, commit: "c0", path: "a b/../%2e.json" };
    for (endpoint, expected) in [
        ("https://huggingface.co", "https://huggingface.co/org/name/resolve/c0/a%20b/%252e.json"),
        ("http://mirror:8080/hf/", "http://mirror:8080/hf/org/name/resolve/c0/a%20b/%252e.json"),
    ] {
        assert_eq!(hub(endpoint).unwrap().download_address(place).as_str(), expected);
    }
    let revision =
        hub("https://huggingface.co").unwrap().address(["api", "models"], &repository, ["revision", "refs/pr/1"]);
    assert_eq!(revision.path(), "/api/models/org/name/revision/refs%2Fpr%2F1");
}

#[test]
fn an_endpoint_that_cannot_be_one_is_refused_in_words() {
    for endpoint in ["", "huggingface.co", "ftp://x", "http://", "https://u:p@x", "https://x/?a=b", "file:///etc"] {
        let error = hub(endpoint).unwrap_err();
        assert!(matches!(error, HubError::Settings(_)), "{endpoint}: {error}");
        assert!(!error.to_string().contains("u:p"), "{error}");
    }
}

#[test]
fn a_list_goes_on_where_its_link_says() {
    let link = r#"<https://a/1>; rel="prev", <https://a/tree?cursor=x>; rel="next""#;
    assert_eq!(listing::next(link), Some("https://a/tree?cursor=x"));
    assert_eq!(listing::next(r#"<https://a/1>; rel="prev""#), None);
    assert_eq!(listing::next("nonsense"), None);
    let hub = hub("https://a").unwrap();
    assert!(hub.same_hub("x", "https://a/tree?cursor=x").is_ok());
    assert!(hub.same_hub("x", "/tree?cursor=x").is_ok());
    for other in ["https://b/tree", "http://a/tree", "https://a:8443/tree", "//b/tree"] {
        assert!(hub.same_hub("x", other).is_err(), "{other}");
    }
}

#[test]
fn a_list_with_a_path_that_climbs_out_is_refused() {
    let list = |path: &str| {
        let entry = serde_json::json!([{"type": "file", "path": path, "size": 1,
            "oid": "ce013625030ba8dba906f756967f9e9ca394464a"}]);
        listing::parse("x", entry.to_string().as_bytes())
    };
    for path in ["../x", "a/../../x", "/etc/passwd", "a//b", "", ".", "a\\..\\b", "a\0b", "a\nb", &"x".repeat(2000)] {
        assert!(matches!(list(path), Err(HubError::UnsafePath { .. })), "{path:?}");
    }
    assert_eq!(list("config.json").unwrap().len(), 1);
    assert_eq!(list("onnx/model.onnx").unwrap().len(), 0, "below a folder: no checkpoint's");
}
