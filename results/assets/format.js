// Formats numbers and times for readers. The format is English, like the text of the page. Times are in the reader's
// time zone.

const count = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const percent = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const time = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const minute = new Intl.DateTimeFormat("en-GB", { timeStyle: "short" });

export const formatCount = (votes) => count.format(votes);
/** A short form for axes: 1.2K. */
export const formatCompact = (votes) => compact.format(votes);
/** A share from 0 to 1, in percent. A share above 0 is never shown as 0.0%. */
export const formatShare = (share) => (share > 0 && share < 0.0005 ? "<0.1%" : percent.format(share));
/** Unix milliseconds as hours, minutes and seconds. */
export const formatTime = (ms) => time.format(ms);
/** Unix milliseconds as hours and minutes. */
export const formatMinute = (ms) => minute.format(ms);
export const plural = (n, one, many) => `${formatCount(n)} ${n === 1 ? one : many}`;
