//! What a GGUF file of the Llama architecture must declare to be run.

use crate::gguf::{GgufError, GgufHeader};

/// Bound on layers; Llama 3.1 405B has 126.
const LAYERS_LIMIT: u32 = 1_024;
/// Bound on a vector's width, heads included.
const WIDTH_LIMIT: u32 = 1 << 20;

/// Hyperparameters of a dense Llama, consistent with each other and with the tensor table.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    /// Transformer layers.
    pub layers: u32,
    /// Width of the residual stream.
    pub width: u32,
    /// Width of the feed-forward layer.
    pub feed_forward: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads; divides `heads`.
    pub kv_heads: u32,
    /// Longest sequence in tokens that the model was trained for.
    pub context: u32,
    /// Number of tokens in the vocabulary.
    pub vocabulary: u32,
    /// Base of the rotary embedding.
    pub rope_base: f32,
    /// Epsilon of RMSNorm.
    pub norm_epsilon: f32,
}

impl LlamaConfig {
    /// Reads and checks the hyperparameters and that every tensor is there with its shape.
    ///
    /// Variants that an engine would silently compute wrongly are refused: mixtures of experts, rotary scaling, a
    /// rotary width other than the head's.
    ///
    /// # Errors
    /// [`GgufError::Metadata`] or [`GgufError::Tensor`] naming key or tensor.
    pub fn read(header: &GgufHeader) -> Result<Self, GgufError> {
        let refuse = |key: &str, expected: &str, got: String| GgufError::Metadata {
            key: key.to_owned(),
            expected: expected.to_owned(),
            got,
        };
        match header.text("general.architecture")? {
            "llama" => {}
            other => {
                let got = other.chars().take(40).collect::<String>();
                return Err(refuse("general.architecture", "llama", format!("{got:?}")));
            }
        }
        let positive = |key: &str, limit: u32| match header.u32(key)? {
            value if (1..=limit).contains(&value) => Ok(value),
            value => Err(refuse(key, &format!("1 to {limit}"), value.to_string())),
        };
        let layers = positive("llama.block_count", LAYERS_LIMIT)?;
        let width = positive("llama.embedding_length", WIDTH_LIMIT)?;
        let feed_forward = positive("llama.feed_forward_length", WIDTH_LIMIT)?;
        let heads = positive("llama.attention.head_count", width)?;
        let kv_heads = positive("llama.attention.head_count_kv", heads)?;
        let context = positive("llama.context_length", u32::MAX)?;
        let head = width / heads;
        if !width.is_multiple_of(heads) || !head.is_multiple_of(2) {
            return Err(refuse(
                "llama.attention.head_count",
                "heads of one even width",
                format!("{heads} for {width}"),
            ));
        }
        if !heads.is_multiple_of(kv_heads) {
            return Err(refuse(
                "llama.attention.head_count_kv",
                "a divisor of head_count",
                kv_heads.to_string(),
            ));
        }
        match header.u32("llama.rope.dimension_count")? {
            got if got == head => {}
            got => {
                return Err(refuse(
                    "llama.rope.dimension_count",
                    &format!("the head's width {head}"),
                    got.to_string(),
                ));
            }
        }
        for key in ["llama.attention.key_length", "llama.attention.value_length"] {
            match header.optional_u32(key)? {
                Some(got) if got != head => {
                    return Err(refuse(key, &format!("the head's width {head}"), got.to_string()));
                }
                _ => {}
            }
        }
        let rope_base = match header.metadata.contains_key("llama.rope.freq_base") {
            true => header.f32("llama.rope.freq_base")?,
            false => 10_000.0,
        };
        let norm_epsilon = header.f32("llama.attention.layer_norm_rms_epsilon")?;
        if rope_base < 1.0 {
            return Err(refuse("llama.rope.freq_base", "at least 1", rope_base.to_string()));
        }
        if !(0.0..=0.1).contains(&norm_epsilon) {
            return Err(refuse(
                "llama.attention.layer_norm_rms_epsilon",
                "0 to 0.1",
                norm_epsilon.to_string(),
            ));
        }
        if let Some(experts) = header.optional_u32("llama.expert_count")?
            && experts > 0
        {
            return Err(refuse(
                "llama.expert_count",
                "0: mixtures of experts are not supported",
                experts.to_string(),
            ));
        }
        match header.metadata.get("llama.rope.scaling.type") {
            None => {}
            Some(crate::gguf::Value::Text(text)) if text == "none" => {}
            Some(other) => return Err(header.mismatch("llama.rope.scaling.type", "none", other)),
        }
        let tokens = header.texts("tokenizer.ggml.tokens")?.len();
        let vocabulary = u32::try_from(tokens)
            .ok()
            .filter(|&count| count > 0)
            .ok_or_else(|| refuse("tokenizer.ggml.tokens", "1 to 2^32 tokens", tokens.to_string()))?;
        let config = Self {
            layers,
            width,
            feed_forward,
            heads,
            kv_heads,
            context,
            vocabulary,
            rope_base,
            norm_epsilon,
        };
        config.check_tensors(header)?;
        Ok(config)
    }

    /// Width of one head.
    #[must_use]
    pub const fn head_width(&self) -> u32 {
        self.width / self.heads
    }

    fn check_tensors(&self, header: &GgufHeader) -> Result<(), GgufError> {
        let [width, ff, vocabulary] = [self.width, self.feed_forward, self.vocabulary].map(u64::from);
        let kv = u64::from(self.head_width()) * u64::from(self.kv_heads);
        let mut expected = vec![
            ("token_embd.weight".to_owned(), vec![width, vocabulary]),
            ("output_norm.weight".to_owned(), vec![width]),
        ];
        // Without an output matrix the embedding is used for both ends.
        if header.tensor("output.weight").is_some() {
            expected.push(("output.weight".to_owned(), vec![width, vocabulary]));
        }
        for layer in 0..self.layers {
            for (name, shape) in [
                ("attn_norm", vec![width]),
                ("attn_q", vec![width, width]),
                ("attn_k", vec![width, kv]),
                ("attn_v", vec![width, kv]),
                ("attn_output", vec![width, width]),
                ("ffn_norm", vec![width]),
                ("ffn_gate", vec![width, ff]),
                ("ffn_up", vec![width, ff]),
                ("ffn_down", vec![ff, width]),
            ] {
                expected.push((format!("blk.{layer}.{name}.weight"), shape));
            }
        }
        let found: std::collections::BTreeMap<&str, &[u64]> = header
            .tensors
            .iter()
            .map(|tensor| (tensor.name.as_str(), tensor.dims.as_slice()))
            .collect();
        for (name, shape) in &expected {
            match found.get(name.as_str()) {
                Some(dims) if *dims == shape.as_slice() => {}
                Some(dims) => {
                    let reason = format!("expected shape {shape:?}, got {dims:?}");
                    return Err(GgufError::Tensor {
                        name: name.clone(),
                        reason,
                    });
                }
                None => {
                    let reason = format!("is missing, expected shape {shape:?}");
                    return Err(GgufError::Tensor {
                        name: name.clone(),
                        reason,
                    });
                }
            }
        }
        // A tensor that the engine does not know (rotary factors, biases, adapters) would be ignored, and the answer
        // would not be the model's.
        let known: std::collections::BTreeSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
        if let Some(tensor) = header
            .tensors
            .iter()
            .find(|tensor| !known.contains(tensor.name.as_str()))
        {
            return Err(GgufError::Tensor {
                name: tensor.name.clone(),
                reason: "is not part of a plain Llama".into(),
            });
        }
        Ok(())
    }
}
