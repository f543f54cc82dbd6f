"""What the whole suite shares: runs to disturb, drawn pictures, rows to compare with, the reference labels."""
