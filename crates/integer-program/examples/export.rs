//! Writes what `tests/fixtures/check_programs.py` reads: programs of the operators' models with an input, as JSON.
//! usage: export OPS.json > programs.json
use opg_integer_program::{
    compile::{Options, Profile, compile},
    quantise::quantise_input,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: export OPS.json")?;
    let cases: serde_json::Value = serde_json::from_slice(&std::fs::read(path)?)?;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut out = Vec::new();
    for case in cases.as_array().ok_or("not a list")? {
        let text = case["onnx"].as_str().ok_or("no model")?;
        let onnx: Vec<u8> = (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16))
            .collect::<Result<_, _>>()?;
        let inputs = case["inputs"].as_array().ok_or("no inputs")?;
        let samples: Vec<_> = inputs.iter().take(32).map(|x| serde_json::json!({ "x": x })).collect();
        for profile in [Profile::Int8, Profile::Int16] {
            let options = Options {
                profile,
                ..Options::default()
            };
            let program = compile(&onnx, Some(&serde_json::to_vec(&samples)?), &options)?.program;
            let bytes = program.encode();
            if bytes.len() > 24_000 {
                continue;
            }
            let numbers = inputs.last().and_then(|x| x.as_array()).ok_or("no input")?;
            let x: Vec<f32> = numbers.iter().filter_map(|x| x.as_f64()).map(|x| x as f32).collect();
            let integers = quantise_input(&program.graph.inputs[0], &x)?;
            out.push(
                serde_json::json!({ "name": case["name"], "program": hex(&bytes), "floats": x, "input": integers }),
            );
        }
    }
    println!("{}", serde_json::to_string(&out)?);
    Ok(())
}
