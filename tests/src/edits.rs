//! Random valid edits of a spec, one after another. Pure.

use serde_json::{Value, json};

/// Numbers that depend on the seed alone (`SplitMix64`).
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn within(&mut self, least: u64, most: u64) -> u64 {
        least + self.next() % (most - least + 1)
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.within(0, all.len() as u64 - 1) as usize]
    }
}

/// Fields that an edit may set, each to a value that the API server takes whatever the others are.
const FIELDS: [&str; 20] = [
    "model",
    "quantization",
    "gpu",
    "context/maxTokens",
    "context/maxConcurrency",
    "context/kvCacheDtype",
    "replicas",
    "scaling",
    "scaling/target",
    "rollout",
    "drain",
    "pod/labels",
    "pod/annotations",
    "pod/nodeSelector",
    "pod/tolerations",
    "pod/env",
    "pod/resources",
    "pod/imagePullSecrets",
    "pod/priorityClassName",
    "pod",
];

/// Sets or removes one to three fields.
pub fn edit(spec: &mut Value, random: &mut Random) {
    for _ in 0..random.within(1, 3) {
        let field = *random.one_of(&FIELDS);
        let keep = random.within(0, 3) > 0 || field == "model";
        let value = if keep { value(field, random) } else { Value::Null };
        match field.split_once('/') {
            Some((block, _)) if !keep && spec[block].is_null() => {}
            Some((block, inner)) => set(&mut spec[block], inner, value),
            None => set(spec, field, value),
        }
    }
}

fn set(block: &mut Value, field: &str, value: Value) {
    block[field] = value;
    if let Some(fields) = block.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
}

fn value(field: &str, random: &mut Random) -> Value {
    let word = |random: &mut Random| (*random.one_of(&["a", "b", "c", "d"])).to_owned();
    match field {
        "model" => {
            let uri = format!("pvc://tiny-llava/{}", word(random));
            let aliases: Vec<_> = ["x", "y"].iter().filter(|_| random.within(0, 2) == 0).collect();
            if aliases.is_empty() { json!({"uri": uri}) } else { json!({"uri": uri, "aliases": aliases}) }
        }
        "quantization" => json!(*random.one_of(&["none", "int8", "int4", "auto"])),
        "gpu" => json!({"type": *random.one_of(&["nvidia-l4", "nvidia-a100-80gb", "nvidia-h100"])}),
        // What the tiny model takes, and below, memory that it fits: else there are no children to compare.
        "context/maxTokens" => json!(random.within(16, 1024)),
        "context/maxConcurrency" => json!(random.within(1, 256)),
        "context/kvCacheDtype" => json!(*random.one_of(&["auto", "int8", "fp8"])),
        "replicas" => json!(random.within(0, 3)),
        "scaling" => {
            let min = random.within(1, 3);
            json!({"minReplicas": min, "maxReplicas": random.within(min, 4), "panicSeconds": random.within(2, 10),
                   "stableSeconds": random.within(10, 60), "downStabilizationSeconds": random.within(0, 300)})
        }
        "scaling/target" => json!({"queueDepth": random.within(0, 9), "concurrency": random.within(1, 9)}),
        "rollout" => json!({"progressDeadlineSeconds": random.within(10, 9000)}),
        "drain" => json!({"timeoutSeconds": random.within(0, 600)}),
        "pod/labels" | "pod/annotations" => json!({word(random): word(random), word(random): word(random)}),
        // Labels that the made-up node has: no pod looks at a checkpoint on a node that there is not.
        "pod/nodeSelector" => {
            let word = word(random);
            json!({word.clone(): word})
        }
        "pod/tolerations" => json!([{"key": word(random), "operator": "Exists"}]),
        "pod/env" => json!([{"name": word(random), "value": word(random)},
            {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": word(random), "key": word(random), "optional": true}}}]),
        "pod/resources" => json!({"requests": {"cpu": "10m"}, "limits": {"cpu": random.within(1, 4).to_string(),
                                  "memory": format!("{}Mi", random.within(2048, 4096))}}),
        "pod/imagePullSecrets" => json!([{"name": word(random)}]),
        "pod/priorityClassName" => json!("system-node-critical"),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_gives_the_same_edits_and_another_seed_others() {
        let after = |seed| {
            let (mut random, mut spec) = (Random(seed), json!({"model": {"uri": "pvc://tiny-llava/a"}}));
            (0..50).for_each(|_| edit(&mut spec, &mut random));
            spec
        };
        assert_eq!(after(1), after(1));
        assert_ne!(after(1), after(2));
    }

    #[test]
    fn every_field_is_set_and_removed_within_a_campaign() {
        let (mut random, mut spec) = (Random(1), json!({"model": {"uri": "pvc://tiny-llava/a"}}));
        let (mut set, mut unset) = (vec![false; FIELDS.len()], vec![false; FIELDS.len()]);
        for _ in 0..300 {
            edit(&mut spec, &mut random);
            for (i, field) in FIELDS.iter().enumerate() {
                let there = spec.pointer(&format!("/{field}")).is_some();
                set[i] |= there;
                unset[i] |= !there;
            }
            assert!(spec["model"]["uri"].is_string(), "{spec}");
        }
        assert!(set.iter().all(|s| *s), "{set:?}");
        assert!(unset.iter().skip(1).all(|s| *s), "{unset:?}");
    }
}
