//! Layers without an end mark, as `umoci insert` makes them; files of ids that the user does not have, and --squash-ids.

use super::build::{Layer, oci, tiny};
use super::*;
use serde_json::json;

/// A command that can run, and a file of uid 70000.
fn beyond(place: &Place) -> (Vec<u8>, Vec<u8>) {
    (tiny(place), Layer::new().dir("far", 0o755, (70000, 70001)).file("far/file", "x").dir("near", 0o755, (7, 8)).end())
}

/// The `about.json` of every unpacked layer.
fn abouts(place: &Place) -> Vec<serde_json::Value> {
    let layers = std::fs::read_dir(place.store().join("layers")).unwrap().flatten();
    layers.map(|l| serde_json::from_slice(&std::fs::read(l.path().join("about.json")).unwrap()).unwrap()).collect()
}

#[test]
fn ids_beyond_the_range_are_refused_or_squashed() {
    let place = place();
    let (tiny, far) = beyond(&place);
    let config = json!({ "Cmd": ["stat", "-c", "%u:%g", "/far", "/near"] });
    let word = oci(&place, "far", &[tiny.clone(), far.clone()], config.clone());
    let other = oci(&place, "other", &[tiny, far.clone()], json!({ "Cmd": ["true"] }));

    // The id, and the cure; nothing is left.
    let names_both = |out: Output| {
        out.refused("cannot").hinted();
        assert!(out.stderr.contains("uid 70000") && out.stderr.contains("--squash-ids"), "{out:?}");
    };
    names_both(place.sandbox(&["load", &word]));
    names_both(place.sandbox(&["run", &word]));
    let tar = place.archive("far.tar", &far);
    names_both(place.sandbox(&["import", &tar, "localhost/imported"]));
    place.sandbox(&["gc"]).ok();
    assert_eq!(place.stored(), Vec::<String>::new());

    // With the flag they are root's, and the layer says so; the other one says that it is whole.
    place.sandbox(&["load", "--squash-ids", &word]).ok();
    assert_eq!(place.sandbox(&["run", "localhost/far"]).ok(), "0:0\n7:8");
    let mut squashed: Vec<u64> = abouts(&place).iter().map(|a| a["squashed"].as_u64().unwrap()).collect();
    squashed.sort();
    assert_eq!(squashed, [0, 1]);
    assert!(place.sandbox(&["inspect", "localhost/far"]).ok().contains("became root's: 1, the first at 'far'"));

    // Another image with this layer does not get it without a word.
    let refused = place.sandbox(&["load", &other]);
    refused.refused("were given to root").hinted();
    assert!(refused.stderr.contains("--squash-ids"), "{refused:?}");
    place.sandbox(&["load", "--squash-ids", &other]).ok();
    place.sandbox(&["run", "localhost/other"]).ok();
    // What is sent is the layer as it came.
    place.sandbox(&["save", "-o", &place.at("saved.tar"), "localhost/far"]).ok();
    place.sandbox(&["rmi", "localhost/far", "localhost/other"]).ok();
    assert_eq!(place.stored(), Vec::<String>::new());
    names_both(place.sandbox(&["load", "-i", &place.at("saved.tar")]));

    // The same for import and run.
    place.sandbox(&["import", "--squash-ids", &tar, "localhost/imported"]).ok();
    place.sandbox(&["rmi", "localhost/imported"]).ok();
    assert_eq!(place.sandbox(&["run", "--squash-ids", &word]).ok(), "0:0\n7:8");
    // Lost, it is made again only with the flag.
    let lost = abouts(&place).into_iter().find(|a| a["squashed"] == 1).unwrap();
    let dirs = std::fs::read_dir(place.store().join("layers")).unwrap().flatten().map(|e| e.path());
    let dir = dirs.into_iter().find(|d| std::fs::read_to_string(d.join("about.json")).unwrap().contains(lost["diff_id"].as_str().unwrap())).unwrap();
    place.sandbox(&["layer", "remove", &dir.display().to_string()]).ok();
    names_both(place.sandbox(&["run", "localhost/far"]));
    assert_eq!(place.sandbox(&["run", "--squash-ids", "localhost/far"]).ok(), "0:0\n7:8");
    assert_eq!(place.sandbox(&["run", "localhost/far"]).ok(), "0:0\n7:8");
    place.sandbox(&["run", "--squash-ids", "--", "true"]).refused("without an image");
    place.sandbox(&["rmi", "localhost/far"]).ok();
}

/// An image of a shared store is unpacked by the run, so each run says it; what it wrote can be looked at and committed.
#[test]
fn squashed_layers_of_a_shared_store() {
    let mut place = place();
    let (tiny, far) = beyond(&place);
    let word = oci(&place, "far", &[tiny, far], json!({ "Cmd": ["stat", "-c", "%u:%g", "/far"] }));
    place.sandbox(&["load", "--squash-ids", &word]).ok();
    let shared = place.at("shared");
    for (program, args) in [("cp", ["-r", &place.store().display().to_string(), &shared]), ("chmod", ["-R", "a+rX,go-w", &shared])] {
        assert!(std::process::Command::new(program).args(args).status().unwrap().success());
    }
    place.sandbox(&["rmi", "localhost/far"]).ok();
    place.env.insert("SANDBOX_STORES".into(), shared);
    place.sandbox(&["run", "localhost/far"]).refused("uid 70000").hinted();
    assert_eq!(place.sandbox(&["run", "--squash-ids", "--layer", "l", "localhost/far", "sh", "-c", "echo x > /far/new; echo y"]).ok(), "y");
    place.sandbox(&["run", "localhost/far"]).refused("were given to root").hinted();
    assert_eq!(place.sandbox(&["diff", "l"]).ok(), "C /far\nA /far/new");
    place.sandbox(&["commit", "l", "localhost/more"]).ok();
    assert_eq!(place.sandbox(&["run", "localhost/more", "cat", "/far/new"]).ok(), "x");
    place.sandbox(&["rm", "l"]).ok();
    place.sandbox(&["rmi", "localhost/more"]).ok();
    place.sandbox(&["prune", "-af"]).ok();
    assert_eq!(place.stored(), Vec::<String>::new());
}

/// The user gets more subordinate ids: what was squashed is not taken for whole.
#[test]
fn a_squashed_layer_is_not_used_with_a_larger_range() {
    let Some(plain) = accounts().plain.clone() else { return skip("needs root, to become another user") };
    let place = Place::of(plain);
    let word = oci(&place, "near", &[tiny(&place), Layer::new().dir("near", 0o755, (7, 8)).end()], json!({ "Cmd": ["stat", "-c", "%u", "/near"] }));
    place.sandbox(&["load", "--squash-ids", &word]).ok();
    assert_eq!(place.sandbox(&["run", "localhost/near"]).ok(), "0");
    // As if it had been unpacked before the range was changed.
    for layer in std::fs::read_dir(place.store().join("layers")).unwrap().flatten() {
        let path = layer.path().join("about.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = text.split_once("\"uids\":[").unwrap();
        let (_, after) = rest.split_once(']').unwrap();
        std::fs::write(&path, format!("{before}\"uids\":[\"0:4711:1\"]{after}")).unwrap();
    }
    place.sandbox(&["run", "localhost/near"]).refused("other subordinate ids").hinted();
    place.sandbox(&["rmi", "-f", "localhost/near"]).ok();
    // With one id, owners are kept beside the files.
    place.sandbox(&["load", &word]).ok();
    assert_eq!(place.sandbox(&["run", "localhost/near"]).ok(), "7");
    place.sandbox(&["rmi", "-f", "localhost/near"]).ok();
    place.sandbox(&["gc"]).ok();
    assert_eq!(place.stored(), Vec::<String>::new());
}

/// Debian's umoci writes layers that end where their last entry ends.
#[test]
fn layers_of_umoci_insert_have_no_end_mark() {
    need!(has("umoci"), "needs umoci");
    let place = place();
    oci(&place, "inserted", &[tiny(&place)], json!({ "Cmd": ["cat", "/etc/inserted"] }));
    place.file("content", "by umoci\n");
    let umoci = |args: &[&str]| finish(place.command("umoci").args(args).spawn().expect("umoci"), b"");
    let image = format!("{}:localhost/inserted:latest", place.at("inserted"));
    // What root made is the user's, since umoci writes there.
    place.own_all("inserted");
    umoci(&["insert", "--rootless", "--image", &image, &place.at("content"), "/etc/inserted"]).ok();
    let index: serde_json::Value = serde_json::from_slice(&std::fs::read(place.path("inserted/index.json")).unwrap()).unwrap();
    let blob = |digest: &serde_json::Value| std::fs::read(place.path("inserted/blobs/sha256").join(&digest.as_str().unwrap()[7..])).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&blob(&index["manifests"][0]["digest"])).unwrap();
    let top = manifest["layers"].as_array().unwrap().last().unwrap();
    let mut tar = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(blob(&top["digest"]).as_slice()), &mut tar).unwrap();
    assert!(tar.ends_with(b"by umoci\n"), "umoci has learned to end an archive: {} bytes", tar.len());

    place.sandbox(&["load", &format!("oci:{}", place.at("inserted"))]).ok();
    assert_eq!(place.sandbox(&["run", "localhost/inserted"]).ok(), "by umoci");
    let file = place.archive("layer.tar", &tar);
    place.sandbox(&["import", &file, "localhost/layer"]).ok();
    // Cut anywhere else, it is refused, and nothing stays.
    place.sandbox(&["rmi", "localhost/inserted", "localhost/layer"]).ok();
    let padded = [tar.as_slice(), &[0; 100]].concat();
    for cut in [&tar[..tar.len() - 1], &tar[..tar.len() - 9], &tar[..300], &padded] {
        let file = place.archive("cut.tar", cut);
        place.sandbox(&["import", &file, "localhost/cut"]).refused("too early");
    }
    place.sandbox(&["import", &place.archive("none.tar", b""), "localhost/none"]).refused("is empty");
    place.sandbox(&["gc"]).ok();
    assert_eq!(place.stored(), Vec::<String>::new());
}
