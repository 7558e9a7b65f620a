import assert from 'node:assert/strict';
import {test} from 'node:test';
import {bytes, count, counted, day, days, figure, percent, sentence} from '../src/format.ts';

test('numbers have separators, and nouns their number', () => {
    assert.equal(count(1234567), '1,234,567');
    assert.equal(counted(1, 'tile'), '1 tile');
    assert.equal(counted(0, 'tile'), '0 tiles');
});

test('sizes take the unit that keeps them short', () => {
    assert.deepEqual([0, 999, 1000, 293717, 1.5e9].map(bytes), ['0 bytes', '999 bytes', '1.0 kB', '294 kB', '1.5 GB']);
});

test('only a full share is 100 percent, and only nothing is 0 percent', () => {
    assert.deepEqual([0, 0.001, 0.5, 0.999, 1].map(percent), ['0 %', '< 1 %', '50 %', '> 99 %', '100 %']);
});

test('days are those of UTC, and a text that is no time stays', () => {
    assert.equal(day('2024-06-01T23:30:00-02:00'), '2024-06-02');
    assert.equal(day('<b>soon</b>'), '<b>soon</b>');
    assert.equal(days('2024-06-01T00:00:00Z', '2024-06-01T12:00:00Z'), '2024-06-01');
    assert.equal(days(null, '2025-01-31T12:00:00Z'), '2025-01-31');
    assert.equal(days(null, null), null);
});

test('figures have three digits', () => {
    assert.deepEqual([0.93456, 12.345, 1234.5, -0.5, 4.5e-7].map(figure), ['0.935', '12.3', '1,235', '-0.5', '0.00000045']);
});

test('texts begin with a capital letter, but paths and names stay as they are', () => {
    assert.equal(sentence('the store refuses'), 'The store refuses');
    assert.equal(sentence("dataset 'town' is not ready"), "Dataset 'town' is not ready");
    assert.equal(sentence('platform'), 'Platform');
    for (const text of ['datasets/a/manifest.json: cut off', 'scene.tif: no band 5', 'effective_rank 3.1 < 8', 'https://a.example', '']) {
        assert.equal(sentence(text), text);
    }
});
