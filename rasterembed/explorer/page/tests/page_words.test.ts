import assert from 'node:assert/strict';
import {test} from 'node:test';
import {amountsOf, scenesOf} from '../src/card_text.ts';
import type {Card} from '../src/api.ts';
import {canPick} from '../src/filters.ts';
import {inPageWords} from '../src/page_words.ts';

test('parameters of the library have the names of the controls', () => {
    assert.equal(
        inPageWords('tile r000000_c000001 is in 2 scenes: write a/r000000_c000001, or choose the scene with `pick=latest` or `pick=clearest`'),
        'tile r000000_c000001 is in 2 scenes: write a/r000000_c000001, or choose the scene with “Only the latest scene of each tile” or “Only the clearest scene of each tile”',
    );
    assert.equal(
        inPageWords('`like` and `unlike` have 101 tiles: give at most 100'),
        '“More like this” and “Less like this” have 101 tiles: give at most 100',
    );
    assert.equal(inPageWords('`polygon` has 10001 corners: give at most 10000'), '“Area” has 10001 corners: give at most 10000');
});

test('settings keep their names, and commands have the words of a command line', () => {
    assert.equal(inPageWords('embed the raster again with `replace`'), 'embed the raster again with the setting “replace”');
    assert.equal(inPageWords('or allow footprints in pixels with `allow_no_crs`'), 'or allow footprints in pixels with the setting “allow_no_crs”');
    assert.equal(inPageWords('embed a collection with `anchor=crs`'), 'embed a collection with the setting “anchor=crs”');
    assert.equal(inPageWords('run `rasterembed collection rebuild survey`'), 'run “rasterembed collection rebuild survey”');
});

test('a path of the API is an address of the page', () => {
    assert.equal(
        inPageWords("'survey' is a collection: its path is `/api/collections/survey`"),
        "'survey' is a collection: its path is “?view=collections/survey” in the address of this page",
    );
});

test('the place of a wrong value is the label of its control, or is left out', () => {
    assert.equal(inPageWords('body.where.since: give a date'), 'Dates: give a date');
    assert.equal(inPageWords('body.query.like: give at most 100 values'), 'More like this: give at most 100 values');
    assert.equal(inPageWords('query.max_cloud_cover: give 100 or less'), 'Clouds: give 100 or less');
    assert.equal(inPageWords("body.query.tile: 'x' is not a tile id"), "'x' is not a tile id");
    assert.equal(inPageWords('body: the body cannot be read'), 'the body cannot be read');
    assert.equal(inPageWords('path.z: give 24 or less'), 'give 24 or less');
});

test('other texts are left as they are', () => {
    for (const text of ['a.tif: it is cut off', 'no tile at 1, 2', 'a `Name` in backticks', 'constructor', '`']) {
        assert.equal(inPageWords(text), text);
    }
});

test('only scenes of an anchored collection can be picked', () => {
    assert.equal(canPick({kind: 'collections', anchored: true}), true);
    assert.equal(canPick({kind: 'collections', anchored: false}), false);
    assert.equal(canPick({kind: 'datasets', anchored: true}), false);
});

test('failed scenes of a collection are counted as failed', () => {
    const card = {kind: 'collections', scenes: 7, failed: 2, rows: 1024, tiles: 1030} as Card;
    assert.equal(amountsOf(card), '7 scenes, 2 failed · 1,024 tiles');
    assert.equal(amountsOf({...card, scenes: 1, failed: 0}), '1 scene · 1,024 tiles');
    assert.equal(amountsOf({...card, kind: 'datasets', scenes: null, failed: null}), '1,024 tiles');
    assert.equal(scenesOf({scenes: null, failed: null}), null);
});
