//! The time before the model is there: what probes and clients are told, and that ready means ready.

use serde_json::json;
use tempfile::TempDir;

use super::random_llava::{self, Geometry};
use super::server::{Server, answer, checkpoint, question};

/// Large enough to be quantised for a while; the vocabulary is that of the tiny checkpoint's tokenizer.
pub const GEOMETRY: Geometry = Geometry {
    vocabulary: 261,
    hidden: 768,
    inner: 3072,
    layers: 12,
    heads: 12,
    kv_heads: 12,
    vision_hidden: 32,
    vision_inner: 64,
    vision_layers: 2,
    vision_heads: 4,
    image: 28,
    patch: 7,
};

/// A checkpoint of random weights with the tiny checkpoint's tokenizer.
pub fn random(geometry: &Geometry) -> TempDir {
    let model = tempfile::tempdir().unwrap();
    random_llava::write(model.path(), geometry);
    for name in ["tokenizer.json", "preprocessor_config.json"] {
        let bytes = std::fs::read(checkpoint().join(name)).unwrap();
        std::fs::write(model.path().join(name), bytes).unwrap();
    }
    model
}

#[tokio::test]
async fn a_loading_server_tells_how_far_it_is_until_it_serves() {
    let model = random(&GEOMETRY);
    let stored = std::fs::metadata(model.path().join("model.safetensors")).unwrap().len();
    let words = ["--quantization", "int4", "--max-tokens", "256", "--max-concurrency", "1"];
    let server = Server::begin(model.path(), &words, &[]);
    let mut seen = Vec::new();
    loop {
        let (status, told) = answer(server.get("/ready").await).await;
        if status == 200 {
            assert_eq!(told, json!({"status": "ready"}));
            break;
        }
        assert_eq!((status, &told["status"]), (503, &json!("loading")), "{told}");
        // Nothing is told before the files are open.
        let (Some(loaded), Some(total)) = (told["loaded_bytes"].as_u64(), told["total_bytes"].as_u64()) else {
            assert!(seen.is_empty(), "{told}");
            continue;
        };
        assert!(loaded <= total && total <= stored && total > stored / 10 * 9, "{told} of {stored}");
        assert!(seen.last().is_none_or(|last| *last <= loaded), "{loaded} after {seen:?}");
        seen.push(loaded);
        assert_eq!(server.get("/health").await.status(), 200);
        let refused = server.post().json(&question(&json!({}))).send().await.unwrap();
        if refused.status() == 503 {
            assert_eq!(refused.headers()["retry-after"], "3");
            let (_, body) = answer(refused).await;
            assert_eq!(body["error"]["code"], "model_loading");
            assert!(body["error"]["message"].as_str().unwrap().contains(&format!(" of {total} bytes")), "{body}");
        }
    }
    seen.dedup();
    assert!(seen.len() >= 5, "{seen:?}");
    // Ready is said once the model answers, so that the first who asks is served.
    let (status, body) = server.ask(&question(&json!({"max_tokens": 2}))).await;
    assert_eq!(status, 200, "{body}");
}
