import assert from 'node:assert/strict';
import {test} from 'node:test';
import {NO_QUERY, NO_WHERE} from '../src/state.ts';
import {readUrl, writeUrl} from '../src/url.ts';
import type {SharedState} from '../src/url.ts';

test('a state survives the way through a URL', () => {
    const state: SharedState = {
        view: {kind: 'collections', id: 'two-dates'},
        position: {lon: -179.5, lat: 65.125, zoom: 11.25},
        colour: 'pca',
        opacity: 0.5,
        classes: 5,
        imagery: false,
        outlines: false,
        query: {
            tile: 'scene-1/r3_c4',
            lonlat: [7.5, 47.25],
            image: 'ab'.repeat(32),
            like: ['scene-1/x+000001_y-000002', 'scene-2/b&c=d'],
            unlike: ['scene 3/ü'],
        },
        where: {
            bbox: [170, -10, -170, 10],
            polygon: {type: 'Polygon', coordinates: [[[0, 0], [1, 0], [1, 1.5], [0, 0]]]},
            minValid: 0.9,
            since: '2024-02-29',
            until: '2025-01-31',
            maxCloud: 12.5,
            pick: 'latest',
        },
        k: 40,
        swipe: {left: '2024-05-01', right: '2025-05-01'},
    };
    assert.deepEqual(readUrl(writeUrl(state)), state);
});

test('the first state has an empty query text', () => {
    const first = readUrl('');
    assert.equal(writeUrl(first), '');
    assert.deepEqual([first.view, first.position, first.colour, first.swipe], [null, null, null, null]);
    assert.deepEqual([first.query, first.where], [NO_QUERY, NO_WHERE]);
});

test('values that cannot be used are left out', () => {
    const bad = [
        'view=other/x',
        'view=datasets/',
        'at=1,2',
        'at=200,0,3',
        'at=,,',
        'at=NaN,0,1',
        'opacity=7',
        'classes=1',
        'classes=13',
        'classes=many',
        'lonlat=0,91',
        'image=../../etc/passwd',
        'bbox=0,10,1,-10',
        'polygon=0,0;1,1',
        'valid=2',
        'since=2023-02-29',
        'until=yesterday',
        'cloud=-1',
        'pick=best',
        'k=0',
        'k=1e9',
        'swipe=2024-01-01',
        'like=',
    ];
    for (const text of bad) assert.deepEqual(readUrl(text), readUrl(''), text);
});

test('lists are bounded and hold each tile once', () => {
    const many = Array.from({length: 300}, (_, index) => `like=d/t${index}`).join('&');
    assert.equal(readUrl(many).query.like.length, 100);
    assert.deepEqual(readUrl('like=d/t&like=d/t').query.like, ['d/t']);
});
