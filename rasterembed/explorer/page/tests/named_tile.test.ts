import assert from 'node:assert/strict';
import {test} from 'node:test';
import {fullName} from '../src/named_tile.ts';

test('the answer tells the full name of a tile that was named without its dataset', () => {
    const example = (role: string, tile: string | null) => ({role, tile, image: null, lonlat: null, remark: ''});
    const examples = [example('like', 'summer/r1_c2'), example('query', null), example('query', 'winter/r1_c2')];
    assert.equal(fullName('r1_c2', {examples}), 'winter/r1_c2');
    assert.equal(fullName('1_c2', {examples}), null);
});
