import assert from 'node:assert/strict';
import {afterEach, test} from 'node:test';
import type {StoreAnswer} from '../src/api.ts';
import {quoted, withRoot} from '../src/command_text.ts';
import {inPageWords} from '../src/page_words.ts';
import {store} from '../src/state.ts';

const rooted = (root: string): void => {
    store.value = {state: 'ready', value: {root} as StoreAnswer};
};

afterEach(() => {
    store.value = {state: 'loading'};
});

test('a command has the root of the store of the page', () => {
    rooted('s3://bucket/prefix');
    assert.equal(withRoot('rasterembed qa scene'), 'rasterembed qa scene --root s3://bucket/prefix');
    assert.equal(withRoot('rasterembed qa scene --root other'), 'rasterembed qa scene --root other');
    assert.equal(
        inPageWords('run `rasterembed datasets verify scene`, then again'),
        'run “rasterembed datasets verify scene --root s3://bucket/prefix”, then again',
    );
});

test('a root is quoted for a shell', () => {
    rooted("/data/my 'store'");
    assert.equal(withRoot('rasterembed qa a'), `rasterembed qa a --root '/data/my '"'"'store'"'"''`);
    assert.equal(quoted('/data/store_2.v1'), '/data/store_2.v1');
    assert.equal(quoted(''), "''");
});

test('a command has no root before the store is known', () => {
    assert.equal(withRoot('rasterembed qa scene'), 'rasterembed qa scene');
});
