import assert from 'node:assert/strict';
import {test} from 'node:test';
import {activeFilters, datesText, shownDatesText} from '../src/filters.ts';
import {NO_WHERE} from '../src/state.ts';
import type {WhereState} from '../src/state.ts';

test('each filter in use is named, and its change removes it alone', () => {
    const where: WhereState = {
        ...NO_WHERE,
        bbox: [24, 60, 25, 61],
        minValid: 0.9,
        since: '2024-06-01',
        maxCloud: 20,
        pick: 'latest',
    };
    const filters = activeFilters(where);
    assert.deepEqual(
        filters.map(({text}) => text.replace(/[\d,.]+ km²/, '… km²')),
        ['Box of … km²', 'Since 2024-06-01', 'At least 90 % valid', 'At most 20 % clouds', 'Only the latest scene'],
    );
    for (const [place, {without}] of filters.entries()) {
        const rest = activeFilters({...where, ...without}).map(({text}) => text);
        assert.deepEqual(rest, filters.filter((_, other) => other !== place).map(({text}) => text));
    }
});

test('a view without filters has none', () => {
    assert.deepEqual(activeFilters({...NO_WHERE, pick: 'all'}), []);
});

test('dates are short texts', () => {
    assert.equal(datesText('2024-06-01', '2024-06-01'), '2024-06-01');
    assert.equal(datesText('2024-06-01', '2024-07-01'), '2024-06-01 to 2024-07-01');
    assert.equal(datesText(null, '2024-07-01'), 'Until 2024-07-01');
    assert.equal(datesText(null, null), 'All dates');
});

test('two dates that are compared take the place of the dates of the filter', () => {
    assert.equal(shownDatesText(NO_WHERE, null), 'All dates');
    assert.equal(shownDatesText({...NO_WHERE, since: '2024-07-03'}, {left: '2024-07-03', right: '2025-08-20'}), '2024-07-03 and 2025-08-20');
});
