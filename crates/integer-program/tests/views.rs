//! Index maps against ndarray.

use ndarray::{ArrayD, Axis, Dimension, IxDyn, Slice, concatenate};
use opg_integer_program::{
    shape::elements,
    view::{Element, View, ViewMap},
};
use proptest::prelude::*;

/// `0, 1, 2, ..` in a shape.
fn counted(shape: &[usize]) -> ArrayD<i64> {
    let count = elements(shape).unwrap() as i64;
    ArrayD::from_shape_vec(IxDyn(shape), (0..count).collect()).unwrap()
}

/// The view's elements, from one source that counts and, for further ones, counts on from 1 000 000 each.
fn run(map: &ViewMap, shape: &[usize], sources: &[&[usize]]) -> Vec<i64> {
    let view = View::new(map, shape, sources).unwrap();
    let out: Vec<i64> = (0..elements(shape).unwrap())
        .map(|at| match view.element(at).unwrap() {
            Element::Source { source, index } => source as i64 * 1_000_000 + index as i64,
            Element::Value(value) => value,
        })
        .collect();
    assert_eq!(view.element(out.len()), None);
    // The affine form, where there is one, says the same.
    if let Some((offset, strides)) = view.affine() {
        let array = counted(shape);
        let array = array.indexed_iter().map(|(position, _)| {
            offset
                + position
                    .as_array_view()
                    .iter()
                    .zip(&strides)
                    .map(|(at, stride)| *at as i64 * stride)
                    .sum::<i64>()
        });
        assert_eq!(array.collect::<Vec<_>>(), out);
    }
    out
}

fn flat(array: &ArrayD<i64>) -> Vec<i64> {
    array.iter().copied().collect()
}

fn shapes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1usize..5, 1..5)
}

proptest! {
    #[test]
    fn transpose(shape in shapes(), seed in any::<u64>()) {
        let mut perm: Vec<usize> = (0..shape.len()).collect();
        for at in (1..perm.len()).rev() {
            perm.swap(at, (seed >> (8 * at)) as usize % (at + 1));
        }
        let expected = counted(&shape).permuted_axes(IxDyn(&perm));
        let map = ViewMap::Transpose { perm: perm.iter().map(|at| *at as u8).collect() };
        prop_assert_eq!(run(&map, expected.shape(), &[&shape]), flat(&expected.as_standard_layout().to_owned()));
    }

    #[test]
    fn slice(shape in shapes(), seed in any::<u64>()) {
        let mut array = counted(&shape);
        let (mut starts, mut steps) = (Vec::new(), Vec::new());
        for (at, dim) in shape.iter().enumerate() {
            let bits = (seed >> (10 * at)) as usize;
            let (from, step) = (bits % dim, 1 + (bits >> 4) % 3);
            let to = from + 1 + (bits >> 6) % (dim - from);
            let backwards = bits & 512 != 0;
            let step = if backwards { -(step as isize) } else { step as isize };
            array.slice_axis_inplace(Axis(at), Slice::new(from as isize, Some(to as isize), step));
            // ndarray cuts first and steps from the end backwards.
            starts.push(if backwards { to - 1 } else { from } as u32);
            steps.push(step as i32);
        }
        let expected = array.as_standard_layout().to_owned();
        prop_assert_eq!(run(&ViewMap::Slice { starts, steps }, expected.shape(), &[&shape]), flat(&expected));
    }

    #[test]
    fn broadcast(shape in shapes(), front in prop::collection::vec(1usize..4, 0..3), mask in any::<u8>()) {
        let own: Vec<usize> = shape.iter().enumerate().map(|(i, dim)| if mask >> i & 1 == 1 { 1 } else { *dim }).collect();
        let target: Vec<usize> = front.iter().chain(&shape).copied().collect();
        let array = counted(&own);
        let expected = array.broadcast(IxDyn(&target)).unwrap().to_owned();
        prop_assert_eq!(run(&ViewMap::Broadcast, &target, &[&own]), flat(&expected));
    }

    #[test]
    fn concat(shape in shapes(), sizes in prop::collection::vec(1usize..4, 1..4), axis in any::<usize>()) {
        let axis = axis % shape.len();
        let shapes: Vec<Vec<usize>> = sizes.iter().map(|size| { let mut own = shape.clone(); own[axis] = *size; own }).collect();
        let arrays: Vec<ArrayD<i64>> = shapes.iter().enumerate().map(|(i, own)| counted(own) + i as i64 * 1_000_000).collect();
        let views: Vec<_> = arrays.iter().map(|array| array.view()).collect();
        let expected = concatenate(Axis(axis), &views).unwrap();
        let sources: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
        let got = run(&ViewMap::Concat { axis: axis as u8 }, expected.shape(), &sources);
        prop_assert_eq!(got, flat(&expected.as_standard_layout().to_owned()));
    }

    #[test]
    fn pad(shape in shapes(), seed in any::<u64>(), value in -9i32..0) {
        let before: Vec<usize> = (0..shape.len()).map(|at| (seed >> (4 * at)) as usize % 3).collect();
        let after: Vec<usize> = (0..shape.len()).map(|at| (seed >> (4 * at + 2)) as usize % 3).collect();
        let target: Vec<usize> = shape.iter().zip(&before).zip(&after).map(|((dim, a), b)| dim + a + b).collect();
        let mut expected = ArrayD::from_elem(IxDyn(&target), i64::from(value));
        let mut inner = expected.view_mut();
        for (at, (before, dim)) in before.iter().zip(&shape).enumerate() {
            inner.slice_axis_inplace(Axis(at), Slice::from(*before..before + dim));
        }
        inner.assign(&counted(&shape));
        let map = ViewMap::Pad { before: before.iter().map(|at| *at as u32).collect(), value };
        prop_assert_eq!(run(&map, &target, &[&shape]), flat(&expected));
    }

    #[test]
    fn select(shape in shapes(), axis in any::<usize>(), picks in prop::collection::vec(any::<usize>(), 1..6)) {
        let axis = axis % shape.len();
        let picks: Vec<usize> = picks.iter().map(|pick| pick % shape[axis]).collect();
        let expected = counted(&shape).select(Axis(axis), &picks);
        let map = ViewMap::Select { axis: axis as u8, indices: picks.iter().map(|at| *at as u32).collect() };
        prop_assert_eq!(run(&map, expected.shape(), &[&shape]), flat(&expected.as_standard_layout().to_owned()));
    }

    #[test]
    fn reshape(shape in shapes()) {
        let count = elements(&shape).unwrap();
        prop_assert_eq!(run(&ViewMap::Reshape, &[count], &[&shape]), flat(&counted(&shape)));
    }
}

#[test]
fn maps_that_do_not_fit_are_refused() {
    let cases: [(ViewMap, &[usize], &[&[usize]]); 9] = [
        (ViewMap::Reshape, &[5], &[&[2, 3]]),
        (ViewMap::Transpose { perm: vec![0, 0] }, &[2, 2], &[&[2, 2]]),
        (ViewMap::Transpose { perm: vec![1, 0] }, &[2, 3], &[&[2, 3]]),
        (
            ViewMap::Slice {
                starts: vec![1],
                steps: vec![1],
            },
            &[3],
            &[&[3]],
        ),
        (
            ViewMap::Slice {
                starts: vec![0],
                steps: vec![0],
            },
            &[1],
            &[&[3]],
        ),
        (ViewMap::Broadcast, &[2, 3], &[&[2, 2]]),
        (ViewMap::Concat { axis: 0 }, &[4], &[&[2], &[3]]),
        (
            ViewMap::Pad {
                before: vec![2],
                value: 0,
            },
            &[3],
            &[&[2]],
        ),
        (
            ViewMap::Select {
                axis: 0,
                indices: vec![3],
            },
            &[1],
            &[&[3]],
        ),
    ];
    for (map, shape, sources) in cases {
        assert!(View::new(&map, shape, sources).is_err(), "{map:?}");
    }
}
