//! Reads the API server's audit log: who wrote what within a window of time.

use std::io::{BufRead as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt as _;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::cluster::await_that;
use crate::made_up::{manifest, node};
use crate::space::Space;
use crate::watch::models;

/// Creates `count` models of `replicas` pods each on the made-up node, and waits until all are ready.
pub async fn many(space: &Space, count: usize, replicas: u32) {
    node().await;
    let api = models(&space.name).await;
    let create = |i: usize| {
        let manifest = manifest(space, &format!("many-{i}"), &json!({"replicas": replicas}), false);
        let (api, object) = (api.clone(), serde_json::from_value(manifest).expect("an object"));
        async move { api.create(&PostParams::default(), &object).await.expect("create") }
    };
    futures::stream::iter(0..count).map(create).buffer_unordered(16).collect::<Vec<_>>().await;
    await_that("all models are ready", 240, || async {
        let all = api.list(&kube::api::ListParams::default()).await.map_err(|e| e.to_string())?.items;
        let ready = |object: &kube::api::DynamicObject| {
            let conditions = object.data["status"]["conditions"].as_array();
            conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
        };
        let named = all.iter().filter(|o| o.metadata.name.as_deref().is_some_and(|n| n.starts_with("many-")));
        let ready = named.filter(|object| ready(object)).count();
        if ready == count { Ok(()) } else { Err(format!("{ready} of {count}")) }
    })
    .await;
}

/// The audit log of the cluster whose folder `CLUSTER_DIR` names.
pub fn audit_log() -> PathBuf {
    PathBuf::from(std::env::var_os("CLUSTER_DIR").expect("CLUSTER_DIR is set inside the cluster")).join("log/audit.log")
}

/// A part of the audit log, from an offset in bytes on.
pub struct Window {
    from: u64,
}

impl Window {
    /// From now on.
    pub fn now() -> Self {
        Self { from: size() }
    }

    /// Waits until nothing in the space has been written for 10 s, then lets `seconds` pass.
    pub async fn after_settling(space: &Space, seconds: u64) -> Self {
        let (mut from, mut quiet) = (size(), std::time::Instant::now());
        await_that("the model settles", 120, || {
            let written = writes(&Self { from }, |e| e["objectRef"]["namespace"] == space.name.as_str());
            if !written.is_empty() {
                (from, quiet) = (size(), std::time::Instant::now());
            }
            let still = quiet.elapsed() > Duration::from_secs(10);
            async move { if still { Ok(()) } else { Err("still writing".to_owned()) } }
        })
        .await;
        let window = Self::now();
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        window
    }
}

fn size() -> u64 {
    std::fs::metadata(audit_log()).expect("audit log").len()
}

/// The answered requests of a window, in the order of their answers.
pub fn entries(window: &Window) -> Vec<Value> {
    let mut file = std::fs::File::open(audit_log()).expect("audit log");
    file.seek(SeekFrom::Start(window.from)).expect("seek");
    std::io::BufReader::new(file)
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| serde_json::from_str::<Value>(&line).ok())
        .filter(|entry| entry["stage"] == "ResponseComplete")
        .collect()
}

/// The writes of a window that pass the filter, leases and events of other controllers left out.
pub fn writes(window: &Window, wanted: impl Fn(&Value) -> bool) -> Vec<String> {
    entries(window)
        .into_iter()
        .filter(|e| matches!(e["verb"].as_str(), Some("create" | "update" | "patch" | "delete" | "deletecollection")))
        .filter(|e| e["objectRef"]["resource"] != "leases")
        .filter(|e| wanted(e))
        .map(|e| {
            let (by, on) = (&e["user"]["username"], &e["objectRef"]);
            format!("{by} {} {} {}/{}", e["verb"], on["resource"], on["namespace"], on["name"])
        })
        .collect()
}
