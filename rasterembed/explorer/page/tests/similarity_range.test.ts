import assert from 'node:assert/strict';
import {test} from 'node:test';
import {rangeText, shareOfRange} from '../src/similarity_range.ts';

test('the bars of similar tiles differ, and their range is told', () => {
    const range: [number, number] = [0.981, 0.989];
    const shares = [0.981, 0.983, 0.985, 0.989].map((value) => shareOfRange(value, range));
    assert.ok(shares.every((share, place) => place === 0 || share - (shares[place - 1] ?? 0) > 0.2));
    assert.ok((shares[0] ?? 0) > 0);
    assert.equal(shares.at(-1), 1);
    assert.equal(rangeText(range), 'Similarity 0.9810 to 0.9890');
});

test('the bar of a single tile is full', () => {
    assert.equal(shareOfRange(-0.2, [-0.2, -0.2]), 1);
});
