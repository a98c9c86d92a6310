//! Revisions, lists and small files: who may see what, what is asked again, and where the token goes.

use vlm_contract::diagnosis::Cause;
use vlm_hub::HubError;
use vlm_hub::hf::{Digest, Place};
use vlm_test_hub::{Fault, Repository, TestHub};

use super::{client, client_at, name, repository_of, tiny};

#[tokio::test]
async fn a_branch_is_resolved_to_its_commit_and_a_commit_is_itself() {
    let (repository, server) = (tiny(), TestHub::start(vec![tiny()]).await);
    let hub = client(&server);
    assert_eq!(hub.resolve(&name(), "main").await.unwrap(), repository.commit());
    let asked = server.asked().len();
    assert_eq!(hub.resolve(&name(), &repository.commit()).await.unwrap(), repository.commit());
    assert_eq!(server.asked().len(), asked, "a commit needs no question");
}

#[tokio::test]
async fn files_come_with_size_and_checksum_over_all_pages() {
    let server = TestHub::start(vec![Repository { page: 2, ..tiny() }]).await;
    let files = client(&server).files(&name(), &tiny().commit()).await.unwrap();
    assert_eq!(files.len(), tiny().files.len());
    for file in &files {
        let content = &tiny().files[&file.name];
        assert_eq!(file.size, content.len() as u64, "{}", file.name);
        if let Digest::Sha256(digits) = &file.digest {
            assert_eq!(*digits, vlm_test_hub::repository::sha256(content));
        }
    }
    assert_eq!(files.iter().filter(|f| matches!(f.digest, Digest::Sha256(_))).count(), 3, "the large ones");
    assert_eq!(server.asked().iter().filter(|a| a.path.contains("/tree/")).count(), 4, "pages of two");
}

async fn refusal(token: Option<&str>, repository: &str, revision: &str) -> HubError {
    let private = Repository { name: "org/private".to_owned(), token: Some("hf_right".to_owned()), ..tiny() };
    let server = TestHub::start(vec![tiny(), private]).await;
    client_at(&server.endpoint, token).resolve(&repository_of(repository), revision).await.unwrap_err()
}

#[tokio::test]
async fn who_may_not_read_is_told_so_and_what_is_not_there_is_not_found() {
    let error = refusal(None, "org/private", "main").await;
    assert_eq!(error.cause(), Cause::ModelAccessDenied);
    let text = error.to_string();
    assert!(text.contains("401") && text.contains("org/private") && text.contains("no token was given"), "{text}");
    let wrong = refusal(Some("hf_wrong"), "org/private", "main").await;
    assert_eq!(wrong.cause(), Cause::ModelNotFound, "the hub hides what this token may not see");
    assert!(!format!("{wrong} {wrong:?}").contains("hf_wrong"));
    let revision = refusal(None, "org/tiny", "v9").await;
    assert_eq!(revision.cause(), Cause::ModelNotFound);
    assert!(revision.to_string().contains("v9") && revision.to_string().contains("Invalid rev id"), "{revision}");
    let none = refusal(Some("hf_right"), "org/none", "main").await;
    assert_eq!(none.cause(), Cause::ModelNotFound);
}

#[tokio::test]
async fn a_gated_repository_is_access_denied_with_a_token_too() {
    let server = TestHub::start(vec![tiny()]).await;
    server.fail("/revision/", [Fault::Status(403, None)]);
    let error = client_at(&server.endpoint, Some("hf_x")).resolve(&name(), "main").await.unwrap_err();
    assert_eq!(error.cause(), Cause::ModelAccessDenied);
    assert!(error.to_string().contains("403") && error.to_string().contains("may not read"), "{error}");
}

#[tokio::test]
async fn what_may_pass_is_asked_again_and_given_up_after_the_last_attempt() {
    let server = TestHub::start(vec![tiny()]).await;
    server.fail("/revision/", [Fault::Status(503, None), Fault::Status(429, Some(0))]);
    assert_eq!(client(&server).resolve(&name(), "main").await.unwrap(), tiny().commit());
    assert_eq!(server.asked().len(), 3);
    server.fail("/revision/", vec![Fault::Status(502, None); 9]);
    let error = client(&server).resolve(&name(), "main").await.unwrap_err();
    assert_eq!(error.cause(), Cause::WeightsDownloadFailed);
    assert!(error.to_string().contains("3 attempts") && error.to_string().contains("502"), "{error}");
    assert_eq!(server.asked().len(), 6);
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_stalls_is_asked_for_again() {
    let server = TestHub::start(vec![tiny()]).await;
    server.fail("config.json", [Fault::Cut(4), Fault::Stall(4)]);
    let commit = tiny().commit();
    let place = Place { repository: &name(), commit: &commit, path: "config.json" };
    assert_eq!(client(&server).read(place, 1000).await.unwrap(), tiny().files["config.json"]);
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn a_hub_that_is_not_there_is_a_failed_download() {
    let server = TestHub::start(vec![]).await;
    let hub = client(&server);
    drop(server);
    let error = hub.resolve(&name(), "main").await.unwrap_err();
    assert_eq!(error.cause(), Cause::WeightsDownloadFailed);
}

/// The storage of the hub is another host: it must not get the token, and refuses whoever brings one.
#[tokio::test]
async fn the_token_goes_to_the_hub_and_to_nobody_else() {
    let server = TestHub::start(vec![Repository { token: Some("hf_right".to_owned()), ..tiny() }]).await;
    let hub = client_at(&server.endpoint, Some("hf_right"));
    let commit = hub.resolve(&name(), "main").await.unwrap();
    let place = Place { repository: &name(), commit: &commit, path: "model-2.safetensors" };
    assert_eq!(hub.read(place, 100_000).await.unwrap(), tiny().files["model-2.safetensors"]);
    let asked = server.asked();
    assert!(asked.iter().any(|asked| asked.storage), "{asked:?}");
    for asked in asked {
        let expected = (!asked.storage).then(|| "Bearer hf_right".to_owned());
        assert_eq!(asked.authorization, expected, "{}", asked.path);
    }
}

#[tokio::test]
async fn the_address_of_a_redirect_is_in_no_error() {
    // An answer that breaks off, and a storage where nobody listens.
    let nowhere = Fault::Redirect("http://127.0.0.1:9/blobs/x?signature=s3cret".to_owned());
    for (path, fault) in [("/blobs/", Fault::Cut(4)), ("/resolve/", nowhere)] {
        let server = TestHub::start(vec![tiny()]).await;
        server.fail(path, vec![fault; 9]);
        let commit = tiny().commit();
        let place = Place { repository: &name(), commit: &commit, path: "model-2.safetensors" };
        let error = client(&server).read(place, 100_000).await.unwrap_err();
        assert!(error.to_string().contains("model-2.safetensors"), "{error}");
        assert!(!format!("{error} {error:?}").contains("s3cret"), "a signed address opens the file: {error}");
    }
}

#[tokio::test]
async fn redirects_in_a_circle_end() {
    let server = TestHub::start(vec![tiny()]).await;
    server.fail("/revision/", vec![Fault::Redirect("/api/models/org/tiny/revision/main".to_owned()); 99]);
    let error = client(&server).resolve(&name(), "main").await.unwrap_err();
    assert!(error.to_string().contains("redirect"), "{error}");
    assert!(server.asked().len() < 10, "{}", server.asked().len());
}
