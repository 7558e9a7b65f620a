/** The dates of a view, and dates as text for people. */
import type {DateOfView, ViewDetails} from './api.ts';
import {day} from './format.ts';

/** Return the dates of a view, from the first to the last. */
export function datesOf(details: ViewDetails | null): DateOfView[] {
    return details === null ? [] : [...details.dates].sort((one, other) => (one.date < other.date ? -1 : 1));
}

/** Return the day of a time in UTC, such as `2024-06-01`. Empty if the time is not known. */
export function dayOf(time: string | null | undefined): string {
    return time ? day(time) : '';
}
