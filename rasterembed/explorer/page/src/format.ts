/** Numbers, sizes and dates as people read them. */

const THREE_DIGITS = new Intl.NumberFormat('en', {maximumSignificantDigits: 3});
const INTEGER = new Intl.NumberFormat('en', {maximumFractionDigits: 0});

/** Return a whole number with separators, such as "1,234,567". */
export function count(value: number): string {
    return INTEGER.format(value);
}

/** Return a number with its noun, such as "1 tile" or "2 tiles". */
export function counted(value: number, one: string, many = `${one}s`): string {
    return `${count(value)} ${value === 1 ? one : many}`;
}

/**
 * Return a text that begins with a capital letter, as a sentence or a title does. A text that begins with a path, a file
 * or a name of several parts is left as it is, because a capital letter would make another name of it.
 */
export function sentence(text: string): string {
    return /^[a-z]+(?=[\s,]|$)/.test(text) ? text.charAt(0).toUpperCase() + text.slice(1) : text;
}

/** Return a size in bytes with a unit of powers of 1,000, such as "1.2 MB". */
export function bytes(value: number): string {
    const units = ['bytes', 'kB', 'MB', 'GB', 'TB', 'PB'];
    let rest = value;
    let unit = 0;
    while (rest >= 999.5 && unit < units.length - 1) {
        rest /= 1000;
        unit += 1;
    }
    const digits = unit === 0 || rest >= 99.5 ? 0 : 1;
    return `${rest.toFixed(digits)} ${units[unit] ?? ''}`;
}

/** Return a share between 0 and 1 in percent, such as "97 %". Only a full share is 100 %. */
export function percent(value: number): string {
    const rounded = Math.round(value * 100);
    if (rounded === 100 && value < 1) return '> 99 %';
    if (rounded === 0 && value > 0) return '< 1 %';
    return `${rounded} %`;
}

/** Return the day of a time, such as "2024-05-01", in UTC; the text itself if it is no time. */
export function day(text: string): string {
    const time = new Date(text);
    return Number.isNaN(time.valueOf()) ? text : time.toISOString().slice(0, 10);
}

/** Return the day and the minute of a time in UTC. */
export function minute(text: string): string {
    const time = new Date(text);
    return Number.isNaN(time.valueOf()) ? text : `${time.toISOString().slice(0, 16).replace('T', ' ')} UTC`;
}

/** Return the days between two times, as one day if both lie on it. */
export function days(first: string | null, last: string | null): string | null {
    if (!first && !last) return null;
    const from = day(first ?? last ?? '');
    const to = day(last ?? first ?? '');
    return from === to ? from : `${from} – ${to}`;
}

/** Return a number with few digits, for legends: "0.93", "12.5", "1,200". */
export function figure(value: number): string {
    if (!Number.isFinite(value)) return String(value);
    if (Math.abs(value) >= 1000) return count(value);
    return THREE_DIGITS.format(value);
}
