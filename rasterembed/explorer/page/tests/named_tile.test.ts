import assert from 'node:assert/strict';
import {test} from 'node:test';
import {fullName, isTileName} from '../src/named_tile.ts';

test('the answer tells the full name of a tile that was named without its dataset', () => {
    const example = (role: string, tile: string | null) => ({role, tile, image: null, lonlat: null, remark: ''});
    const examples = [example('like', 'summer/r1_c2'), example('query', null), example('query', 'winter/r1_c2')];
    assert.equal(fullName('r1_c2', {examples}), 'winter/r1_c2');
    assert.equal(fullName('1_c2', {examples}), null);
});

test('a tile id is told from other texts', () => {
    for (const text of ['r000012_c000034', 'scene/r000012_c000034', 'survey--a.b_c/x+000160_y-030000']) {
        assert.equal(isTileName(text), true, text);
    }
    for (const text of ['nonsense', 'r12_c34', 'Scene/r000012_c000034', 'a/b/r000012_c000034', 'r000012_c000034 x', '']) {
        assert.equal(isTileName(text), false, text);
    }
});
