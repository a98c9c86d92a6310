//! While a checkpoint is looked at, and once it is known how it fits.

use vlm_catalog::{
    gpu::GpuTypes,
    inspection::{Found, Inspection},
};

use super::*;

fn fitted(model: &VisionModel) -> Fitted {
    let path = format!("{}/../catalog/tests/models/InternVL2-1B.json", env!("CARGO_MANIFEST_DIR"));
    let raw = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let found = Found { revision: None, weight_bytes: None, tensors: None::<Vec<(&str, &[usize])>> };
    let inspection = Inspection::new(&raw, found).unwrap();
    crate::plan::fit::fit(&model.spec, &inspection, None, &GpuTypes::default()).unwrap()
}

fn limited(scene: &mut Scene, memory: &str) {
    scene.model.spec.pod = Some(serde_json::from_value(json!({"resources": {"limits": {"memory": memory}}})).unwrap());
    scene.fitted = Some(fitted(&scene.model));
    scene.refused = scene.fitted.as_ref().unwrap().problem();
}

#[test]
fn a_look_that_goes_on_is_work_and_no_failure() {
    let mut scene = Scene::new(1);
    scene.looking = true;
    scene.deployed(0, 0, 0);
    scene.report();
    assert_eq!(scene.ready(), ("False", reasons::INSPECTING));
    assert_eq!((scene.says(RECONCILING).0, scene.says(STALLED).0), ("True", "False"));
    assert!(scene.status.failures.is_empty() && scene.condition(READY).message.contains("checkpoint"));
}

#[test]
fn what_does_not_fit_stalls_at_once_and_an_earlier_good_deployment_serves_on() {
    let mut scene = Scene::serving(2);
    scene.observed.deployment = Some(Arc::new(scene.deployment.clone()));
    scene.model.metadata.generation = Some(2);
    limited(&mut scene, "1Gi");
    scene.report();
    assert_eq!(scene.ready(), ("False", "DoesNotFit"));
    assert_eq!((scene.says(STALLED), scene.says(AVAILABLE).0), (("True", "DoesNotFit"), "True"));
    assert_eq!(scene.says(FITS_GPU), ("False", "DoesNotFit"));
    let fit = scene.status.fit.clone().unwrap();
    assert!(fit.verdict == "DoesNotFit" && fit.required_bytes > fit.available_bytes, "{fit:?}");
    assert!(scene.condition(READY).message.contains(&fit.suggestion.unwrap()));
    assert_eq!(scene.status.failures[0].reason, "DoesNotFit");
    // The mend.
    limited(&mut scene, "16Gi");
    scene.report();
    assert_eq!((scene.ready().0, scene.says(STALLED).0, scene.says(FITS_GPU)), ("True", "False", ("True", "Fits")));
    assert!(scene.status.failures.is_empty() && scene.status.fit.as_ref().unwrap().suggestion.is_none());
}

#[test]
fn what_the_fit_came_to_is_told_and_without_a_limit_nothing_is() {
    let mut scene = Scene::serving(1);
    let resolved = scene.status.resolved.clone().unwrap();
    assert_eq!(
        (resolved.quantization.as_deref(), resolved.max_tokens, resolved.max_concurrency),
        (Some("none"), None, Some(8))
    );
    assert!(scene.status.fit.is_none() && scene.status.conditions.iter().all(|c| c.type_ != FITS_GPU));
    scene.model.spec.quantization = Some(QuantizationChoice::Auto);
    limited(&mut scene, "3Gi");
    scene.report();
    let resolved = scene.status.resolved.clone().unwrap();
    let numbers = scene.fitted.as_ref().unwrap().numbers();
    assert_eq!(resolved.quantization, Some(numbers.quantization.to_string()));
    assert_eq!(resolved.max_tokens.map(i64::from), i64::try_from(numbers.max_tokens).ok());
    assert!(scene.condition(FITS_GPU).message.contains("was chosen"), "{}", scene.condition(FITS_GPU).message);
}

#[test]
fn what_hinders_a_look_for_too_long_stalls_after_the_deadline() {
    let mut scene = Scene::new(1);
    scene.refused = Some(Problem::new(Trouble::ImagePullError, "the image i cannot be pulled"));
    let (_, again) = scene.report();
    assert_eq!((scene.ready(), scene.says(STALLED).0), (("False", "ImagePullError"), "False"));
    assert_eq!(again, Some(Duration::from_secs(1800)));
    scene.wait(1800);
    scene.report();
    assert_eq!(scene.says(STALLED), ("True", "ImagePullError"));
}
