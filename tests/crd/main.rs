//! The chart's CRD is what crdgen writes, and small enough for client-side apply.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

#[test]
fn the_chart_carries_the_generated_crd() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/vlm-operator/templates/crd.yaml");
    let committed = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let generated = serde_yaml::to_string(&vlm_crds::definition()).expect("the CRD serialises");
    assert!(committed == generated, "run `make crds`: {} differs from the types", path.display());
}

#[test]
fn the_crd_fits_the_annotation_of_client_side_apply() {
    let size = serde_yaml::to_string(&vlm_crds::definition()).unwrap().len();
    assert!(size < 256 * 1024, "{size} bytes");
}

#[test]
fn every_example_manifest_is_a_vision_model_of_the_schema() {
    let mut seen = 0;
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "yaml") {
            continue;
        }
        for document in serde_yaml::Deserializer::from_str(&std::fs::read_to_string(&path).unwrap()) {
            let value = <serde_yaml::Value as serde::Deserialize>::deserialize(document).unwrap();
            if value.get("kind").and_then(|k| k.as_str()) != Some("VisionModel") {
                continue;
            }
            let model: vlm_crds::VisionModel = serde_yaml::from_value(value.clone()).unwrap();
            let back = serde_yaml::to_value(&model).unwrap();
            assert_eq!(back.get("spec"), value.get("spec"), "{}: a field was not understood", path.display());
            seen += 1;
        }
    }
    assert!(seen > 0, "no VisionModel among the examples");
}
