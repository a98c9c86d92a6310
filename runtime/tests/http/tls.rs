//! Pictures over https: from servers whose certificate the system trusts, and no way from there to http.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

use super::fetch::{about, redirect, response, serving};
use super::server::{Server, checkpoint, data_url, png};

/// A file beside this one: an authority of certificates, and the certificate and key that it gave 127.0.0.2.
fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/http/tls").join(name)
}

/// A server over TLS on 127.0.0.2 that answers every request with the same bytes; its port.
fn serving_tls(answer: Vec<u8>) -> u16 {
    let certificate = CertificateDer::from_pem_file(file("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(file("key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(versions.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap());
    let listener = TcpListener::bind("127.0.0.2:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(tls, stream.unwrap());
            // Who does not trust the certificate leaves before it asks.
            if stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {
                let _ = stream.write_all(&answer);
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    });
    port
}

#[tokio::test]
async fn pictures_come_over_https_from_whom_the_system_trusts_and_never_on_over_http() {
    let words = ["--allow-image-urls", "--image-url-network", "127.0.0.2", "--image-url-timeout-seconds", "20"];
    let authority = file("authority.pem");
    let server = Server::start_in(&checkpoint(), &words, &[("SSL_CERT_FILE", authority.to_str().unwrap())]).await;
    let picture = format!("https://127.0.0.2:{}/x.png", serving_tls(response("200 OK", "", &png())));
    let (status, fetched) = server.ask(&about(&picture)).await;
    assert_eq!(status, 200, "{fetched}");
    let (_, sent) = server.ask(&about(&data_url())).await;
    assert_eq!(fetched["choices"], sent["choices"]);
    assert_eq!(fetched["usage"]["prompt_tokens"], sent["usage"]["prompt_tokens"]);

    let onward = format!("https://127.0.0.2:{}/", serving_tls(redirect(&picture)));
    assert_eq!(server.ask(&about(&onward)).await.0, 200);
    let (plain, asked) = serving("127.0.0.2", |_| response("200 OK", "", &png())).await;
    let back = format!("https://127.0.0.2:{}/", serving_tls(redirect(&format!("http://127.0.0.2:{plain}/x.png"))));
    let (status, refused) = server.ask(&about(&back)).await;
    assert_eq!((status, &refused["error"]["code"]), (400, &json!("image_not_available")), "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains("redirected from https"), "{refused}");
    assert_eq!(asked.load(Ordering::SeqCst), 0);

    // Whoever does not know the authority does not take its word.
    let stranger = Server::start(&words).await;
    let (status, refused) = stranger.ask(&about(&picture)).await;
    assert_eq!((status, &refused["error"]["code"]), (400, &json!("image_not_available")), "{refused}");
}
