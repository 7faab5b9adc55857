//! Compiles an ONNX file and prints the registration report: `compile MODEL.onnx [DATA.json|-] [int16]`.
use opg_integer_program::compile::{Options, Profile, compile};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let model = std::fs::read(args.next().ok_or("usage: compile MODEL.onnx [DATA.json|-] [int16]")?)?;
    let data = args.next().filter(|path| path != "-").map(std::fs::read).transpose()?;
    let mut options = Options::default();
    if args.next().as_deref() == Some("int16") {
        options.profile = Profile::Int16;
    }
    let compiled = compile(&model, data.as_deref(), &options)?;
    for node in &compiled.program.graph.nodes {
        println!(
            "{:10} {:?} {:?} {:?} {}",
            node.op.name(),
            node.ty.shape,
            node.ty.sort,
            node.ty.range,
            node.name
        );
    }
    println!("{}", serde_json::to_string_pretty(&compiled.report)?);
    println!(
        "{} bytes, graph {}, program {}",
        compiled.program.encode().len(),
        compiled.program.graph.digest(),
        compiled.program.digest()
    );
    Ok(())
}
